//! The program: parse, run, exit code.

use pdcp::cli::{self, Command};
use pdcp::control::{Summary, Watch, benchmark, client, identity, server};
use pdcp::failure::Failure;
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
        Command::Serve(config) => {
            // A server tells what happens from a thread of its own, and this one tells how it ended.
            let watch = Box::new(Report::new(invocation.verbosity, invocation.json));
            (server::serve(*config, watch, &mut |summary| report.end(summary)), "")
        }
        Command::Check(config) => return say(identity::check(&config), &mut report),
        Command::Keygen { key_file, public } => {
            return say(identity::keygen(key_file.as_deref(), public), &mut report);
        }
        Command::Refuse { summary, hint } => (*summary, hint),
        Command::Say(text) => return say(Ok(text), &mut report),
    };
    let code = report.end(&summary);
    report.hint(hint);
    ExitCode::from(code)
}

/// What only has to be said.
fn say(answer: Result<String, Failure>, report: &mut Report) -> ExitCode {
    let code = match answer {
        Ok(text) => report.say(&text),
        Err(failure) => report.end(&Summary { failures: vec![failure], ..Summary::default() }),
    };
    ExitCode::from(code)
}
