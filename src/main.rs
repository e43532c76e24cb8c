//! The program: parse, run, exit code.

use pdcp::cli::{self, Command};
use pdcp::control::{Watch, benchmark, client, server};
use pdcp::report::Report;
use std::process::ExitCode;

fn main() -> ExitCode {
    // The panic has been told on standard error; what is left to say is that it failed.
    std::panic::catch_unwind(run).unwrap_or(ExitCode::FAILURE)
}

fn run() -> ExitCode {
    let invocation = cli::parse(std::env::args_os().skip(1));
    let mut report = Report::new(invocation.verbosity, invocation.json);
    invocation.notes.iter().for_each(|note| report.detail(note));
    let (summary, hint) = match invocation.command {
        Command::Copy(config) => (client::copy(*config, &mut report), ""),
        Command::Benchmark(config) => (benchmark::run(*config, &mut report), ""),
        Command::Serve(config) => (server::serve(*config, &mut report), ""),
        Command::Refuse { summary, hint } => (*summary, hint),
        Command::Say(text) => {
            report.say(&text);
            return ExitCode::SUCCESS;
        }
    };
    report.end(&summary);
    report.hint(hint);
    ExitCode::from(summary.exit_code())
}
