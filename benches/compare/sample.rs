//! What one timed run says, and what is made of several: medians, of interleaved runs only.

/// One run of one program on one row. Only runs whose result was compared byte for byte become a sample.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The row's name, such as `10 %` or `first copy`.
    pub row: String,
    /// The program's name, such as `pdcp push` or `rsync delta`.
    pub program: String,
    /// 0-based.
    pub run: u32,
    /// Wall clock of the asking process, from its start to its exit.
    pub seconds: f64,
    /// File bytes that crossed the connection, as the program tells; `None` where it does not.
    pub moved_bytes: Option<u64>,
    /// User and system time of the asking process, and of the server for this run.
    pub client_cpu_seconds: f64,
    /// See above; 0 where there is no server.
    pub server_cpu_seconds: f64,
    /// Largest resident set of the asking process.
    pub client_peak_bytes: u64,
    /// Of the server; 0 where there is none.
    pub server_peak_bytes: u64,
}
