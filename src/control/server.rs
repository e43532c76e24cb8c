//! The serving side. Not built yet.

use crate::control::{ServeConfig, Summary, Watch};
use crate::failure::{Failure, Kind};

/// Serves until a signal comes.
pub fn serve(config: ServeConfig, watch: &mut dyn Watch) -> Summary {
    let _ = (config, watch);
    Summary { failures: vec![Failure::new(Kind::Other, "not built yet")], ..Summary::default() }
}
