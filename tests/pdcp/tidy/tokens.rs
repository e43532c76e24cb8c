//! Rust text as a list of tokens, for rules that look at names.
//!
//! Comments are left out, and of every literal in quotes only its first quote is kept: what is merely written about is
//! not named. This is no compiler: it need only be right for text that compiles.

/// A word (identifier, keyword or number) or one other character.
#[derive(Clone, Copy, Debug)]
pub(super) struct Token<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
}

pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut at = 0;
    let mut line = 1;
    while at < text.len() {
        let rest = &text[at..];
        let (shown, skipped) = next(rest);
        if shown > 0 {
            tokens.push(Token { line, text: &rest[..shown] });
        }
        line += rest[..skipped].matches('\n').count();
        at += skipped;
    }
    tokens
}

/// Of the token that `rest` begins with: how many bytes are kept (0: nothing is), and how many it takes.
fn next(rest: &str) -> (usize, usize) {
    let first = rest.chars().next().expect("not empty");
    let word = rest.find(|c| !is_of_word(c)).unwrap_or(rest.len());
    if first.is_whitespace() {
        (0, first.len_utf8())
    } else if rest.starts_with("//") {
        (0, rest.find('\n').unwrap_or(rest.len()))
    } else if rest.starts_with("/*") {
        (0, block_comment(rest))
    } else if let Some(raw) = raw_string(rest, word) {
        (word, raw)
    } else if word > 0 {
        (word, word)
    } else if first == '"' {
        (1, quoted(rest, '"'))
    } else if first == '\'' && is_character(rest) {
        (1, quoted(rest, '\''))
    } else {
        (first.len_utf8(), first.len_utf8())
    }
}

fn is_of_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// Comments of this kind nest.
fn block_comment(rest: &str) -> usize {
    let mut depth = 0;
    for (at, pair) in rest.as_bytes().windows(2).enumerate() {
        match pair {
            b"/*" => depth += 1,
            b"*/" if depth == 1 => return at + 2,
            b"*/" => depth -= 1,
            _ => (),
        }
    }
    rest.len()
}

/// The length of a raw string with its prefix, if `rest` begins with one.
fn raw_string(rest: &str, word: usize) -> Option<usize> {
    if !["r", "br", "cr"].contains(&&rest[..word]) {
        return None;
    }
    let hashes = rest[word..].len() - rest[word..].trim_start_matches('#').len();
    let open = word + hashes + 1;
    rest[word + hashes..].starts_with('"').then(|| {
        let close = format!("\"{}", "#".repeat(hashes));
        rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len())
    })
}

/// The length of a literal with both its quotes.
fn quoted(rest: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if c == quote => return at + c.len_utf8(),
            _ => (),
        }
    }
    rest.len()
}

/// `'a'`, and not the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut characters = rest.chars().skip(1);
    characters.next() == Some('\\') || characters.next() == Some('\'')
}

#[test]
fn what_is_in_comments_and_quotes_is_not_named() {
    #[track_caller]
    fn check(text: &str, want: &str) {
        let got: Vec<_> = tokens(text).iter().map(|token| token.text).collect();
        assert_eq!(got.join(" "), want);
    }
    check("a::b_1(2)", "a : : b_1 ( 2 )");
    check("a // b\nc", "a c");
    check("a /* b /* c */ d */ e", "a e");
    check(r#"a("b \" c", d)"#, r#"a ( " , d )"#);
    check(r##"a(r#"b " c"#, d)"##, "a ( r , d )");
    check(r#"r"\" a"#, "r a");
    check("r#type", "r # type");
    check(r#"b"a" c"#, r#"b " c"#);
    check(r"['a', '\'', '\\', b]", "[ ' , ' , ' , b ]");
    check("&'a str", "& ' a str");
    check("gr\u{fc}n '\u{fc}' \u{2026}", "gr\u{fc}n ' \u{2026}");
}

#[test]
fn a_token_knows_its_line() {
    let lines: Vec<_> = tokens("a\n/*\n*/ b \"\n\" c").iter().map(|token| token.line).collect();
    assert_eq!(lines, [1, 3, 3, 4]);
}
