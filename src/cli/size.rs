//! Sizes as people type them: `16KiB`, `1.5M`, `5 bytes`.
//!
//! The expressions are pdiffcopy's (the humanfriendly package's), its freedoms included: `K` and any other word that
//! begins with k are 1000, only `KiB` and `kibibyte` are 1024. Exact where humanfriendly rounds through a float; what
//! does not fit 64 bits is taken as the largest number that does.

/// Symbol and name of the binary units in rising order; their first letter stands for the decimal ones.
const UNITS: [(&str, &str); 8] = [
    ("kib", "kibibyte"),
    ("mib", "mebibyte"),
    ("gib", "gibibyte"),
    ("tib", "tebibyte"),
    ("pib", "pebibyte"),
    ("eib", "exbibyte"),
    ("zib", "zebibyte"),
    ("yib", "yobibyte"),
];

/// Digits of a fraction that are looked at: enough for exabytes to the byte, few enough for 128 bits.
const FRACTION_DIGITS_MAX: usize = 18;

/// The bytes that `text` means, a fraction of a byte cut off. `None` if it means nothing.
pub(super) fn parse(text: &str) -> Option<u64> {
    let (whole, rest) = split_digits(text.trim());
    let (fraction, unit) = match rest.strip_prefix('.').map(split_digits) {
        Some(("", _)) => return None, // "5."
        Some(split) => split,
        None => ("", rest),
    };
    if whole.is_empty() || unit.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let factor = factor(&unit.trim().to_ascii_lowercase())?;
    let (fraction, scale) = fraction
        .chars()
        .take(FRACTION_DIGITS_MAX)
        .fold((0, 1), |(sum, scale), digit| (sum * 10 + u128::from(digit.to_digit(10).unwrap_or(0)), scale * 10));
    let whole = whole.parse::<u64>().unwrap_or(u64::MAX); // digits only: it can but be too long
    let bytes = u128::from(whole).saturating_mul(factor).saturating_add(fraction.saturating_mul(factor) / scale);
    Some(u64::try_from(bytes).unwrap_or(u64::MAX))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Bytes of one `unit`, given in lower case.
fn factor(unit: &str) -> Option<u128> {
    if unit.is_empty() || unit.starts_with('b') {
        return Some(1);
    }
    let singular = unit.trim_end_matches('s');
    for (power, (symbol, name)) in (1..).zip(UNITS) {
        if singular == symbol || singular == name {
            return Some(1024u128.pow(power));
        }
        if singular.starts_with(&symbol[..1]) {
            return Some(1000u128.pow(power));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_means_what_it_means_to_pdiffcopy() {
        #[track_caller]
        fn check(text: &str, want: impl Into<Option<u64>>) {
            assert_eq!(parse(text), want.into(), "{text:?}");
        }
        // Bare numbers and bytes.
        check("13", 13);
        check("007", 7);
        check("13b", 13);
        check("13 b", 13);
        check("5 bytes", 5);
        check("5blah", 5);
        check("1.9", 1);
        check("1.5b", 1);
        check("0.5", 0);
        check("0", 0);
        // Decimal: a letter, a symbol, a word.
        check("5K", 5_000);
        check("5k", 5_000);
        check("5KB", 5_000);
        check("5Kilo", 5_000);
        check("16Ki", 16_000);
        check("2 kilobytes", 2_000);
        check("4.096K", 4_096);
        check("1.1K", 1_100);
        check("1M", 1_000_000);
        check("1mi", 1_000_000);
        check("1m m", 1_000_000);
        check("1 gb", 1_000_000_000);
        check("1 t", 1_000_000_000_000);
        check("1 p", 1_000_000_000_000_000);
        check("1e", 1_000_000_000_000_000_000);
        // Binary: only the full symbol or name.
        check("1KiB", 1 << 10);
        check("1kib", 1 << 10);
        check("1 MiBs", 1 << 20);
        check("1 mebibyte", 1 << 20);
        check("2 mebibytes", 2 << 20);
        check("1.5GiB", 3 << 29);
        check(" 64 KiB ", 64 << 10);
        check("1tib", 1 << 40);
        check("1 exbibyte", 1 << 60);
        // Too large for 64 bits.
        check("18446744073709551615", u64::MAX);
        check("18446744073709551616", u64::MAX);
        check("1z", u64::MAX);
        check("1YiB", u64::MAX);
        check("99999999999999999999.9999999999999999999999Y", u64::MAX);
        // No sizes.
        for nonsense in [
            "", " ", "K", "1x", "-5", "+5", "1e3", "5.", ".5M", "1.5.2", "1 000", "1_000", "1 2K", "3kb1", "5 s", "10µ",
        ] {
            check(nonsense, None);
        }
    }
}
