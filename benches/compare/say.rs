//! Lines for people. That nobody reads any more, as `head` does not, is no reason to lose a run.

/// On standard output: what a run found out.
macro_rules! say {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        _ = writeln!(std::io::stdout(), $($words)*);
    }};
}

/// On standard error: how it goes, and what went wrong.
macro_rules! tell {
    ($($words:tt)*) => {{
        use std::io::Write as _;
        _ = writeln!(std::io::stderr(), $($words)*);
    }};
}
