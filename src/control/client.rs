//! The asking side. Not built yet.

use crate::control::{CopyConfig, Summary, Watch};
use crate::failure::{Failure, Kind};

/// Makes one copy.
pub fn copy(config: CopyConfig, watch: &mut dyn Watch) -> Summary {
    let _ = watch;
    let failure = Failure::new(Kind::Other, "not built yet");
    Summary {
        dry_run: Some(config.dry_run),
        source: config.source_typed,
        target: config.target_typed,
        failures: vec![failure],
        ..Summary::default()
    }
}
