//! The line that a run with `--json` ends with. Whatever is promised of every such line is checked of every one.

use super::Run;
use serde_json::Value;

/// Every key, in the order in which README.md names them.
const KEYS: &[&str] = &[
    "type",
    "schema",
    "status",
    "exit_code",
    "dry_run",
    "direction",
    "source",
    "target",
    "source_bytes",
    "matched_bytes",
    "changed_bytes",
    "hole_bytes",
    "wire_sent_bytes",
    "wire_received_bytes",
    "similarity",
    "changed",
    "elapsed_seconds",
    "digest",
    "verified",
    "read_back",
    "sealing",
    "limit",
    "errors",
    "source_raw",
    "target_raw",
];

/// What `limit` may be, if it is not null.
const LIMITS: &[&str] = &["source disk", "target disk", "network", "hashing", "peer"];

/// What `sealing` may be, if it is not null.
const SEALINGS: &[&str] = &["AES-256-GCM", "ChaCha20-Poly1305", "same kernel", "plaintext"];

/// What `kind` an exit code goes with.
const KINDS: &[(i32, &str)] = &[
    (1, "other"),
    (2, "usage"),
    (3, "source"),
    (5, "refused"),
    (10, "connection_lost"),
    (11, "target"),
    (12, "protocol"),
    (24, "source_changed"),
    (30, "no_progress"),
    (35, "unreachable"),
    (40, "verification"),
    (43, "busy"),
    (129, "interrupted"),
    (130, "interrupted"),
    (143, "interrupted"),
];

/// See the module.
#[derive(Debug)]
pub(crate) struct Summary(Value);

impl Summary {
    #[track_caller]
    pub(super) fn of(run: &Run) -> Self {
        let lines: Vec<&str> = run.stdout.lines().collect();
        let [line] = lines[..] else { panic!("not one line from {run}") };
        let summary = Self(serde_json::from_str(line).unwrap());
        let mut keys: Vec<&str> = summary.0.as_object().unwrap().keys().map(String::as_str).collect();
        let mut wanted = KEYS.to_vec();
        keys.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(keys, wanted, "{run}");
        summary.check(run);
        summary
    }

    #[track_caller]
    fn check(&self, run: &Run) {
        assert_eq!((self.text("type"), self.number("schema")), ("summary", 1), "{run}");
        assert_eq!(self.0["exit_code"], run.code, "{run}");
        assert!(self.0["elapsed_seconds"].as_f64().unwrap() >= 0.0, "{run}");
        let errors = self.0["errors"].as_array().unwrap();
        if run.code == 0 {
            assert_eq!((self.text("status"), errors.len()), ("ok", 0), "{run}");
            let parts = self.number("matched_bytes") + self.number("changed_bytes") + self.number("hole_bytes");
            assert_eq!(parts, self.number("source_bytes"), "{run}");
            let is_proven = !self.flag("dry_run");
            assert_eq!((self.flag("verified"), self.0["digest"].is_string()), (is_proven, is_proven), "{run}");
            assert!(self.0["changed"].is_boolean(), "{run}");
        } else {
            let kind = KINDS.iter().find(|(code, _)| *code == run.code).unwrap().1;
            assert_eq!(errors[0]["kind"], kind, "{run}");
            assert!(!errors[0]["message"].as_str().unwrap().is_empty(), "{run}");
            // Whoever can be named is named.
            let is_about_nothing = ["usage", "interrupted", "other"].contains(&kind);
            assert!(is_about_nothing || !self.error().0.is_empty(), "{run}");
            assert_eq!(self.text("status"), if kind == "interrupted" { kind } else { "failed" }, "{run}");
            assert!(!self.flag("verified"), "{run}");
        }
        let limit = self.0["limit"].as_str();
        assert!(self.is_null("limit") || limit.is_some_and(|limit| LIMITS.contains(&limit)), "{run}");
        let is_local = self.0["direction"] == "local";
        let sealing = self.0["sealing"].as_str();
        assert!(self.is_null("sealing") || sealing.is_some_and(|sealing| SEALINGS.contains(&sealing)), "{run}");
        assert!(run.code != 0 || is_local == sealing.is_none(), "{run}");
        assert!(!is_local || limit.is_none_or(|limit| limit != "network" && limit != "peer"), "{run}");
        self.check_wire(run);
    }

    /// What moved went through this side's sockets, and where there are none, nothing did.
    #[track_caller]
    fn check_wire(&self, run: &Run) {
        let (Some(sent), Some(received)) = (self.maybe("wire_sent_bytes"), self.maybe("wire_received_bytes")) else {
            return;
        };
        let moved = if self.0["dry_run"] == true || run.code != 0 { 0 } else { self.number("changed_bytes") };
        match self.text("direction") {
            "push" => assert!(sent > moved && received > 0, "{run}"),
            "pull" => assert!(received > moved && sent > 0, "{run}"),
            _ => assert_eq!((sent, received), (0, 0), "{run}"),
        }
    }

    pub(crate) fn is_null(&self, key: &str) -> bool {
        self.0[key].is_null()
    }

    #[track_caller]
    pub(crate) fn text(&self, key: &str) -> &str {
        self.0[key].as_str().unwrap_or_else(|| panic!("{key} in {}", self.0))
    }

    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> u64 {
        self.maybe(key).unwrap_or_else(|| panic!("{key} in {}", self.0))
    }

    #[track_caller]
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.0[key].as_bool().unwrap_or_else(|| panic!("{key} in {}", self.0))
    }

    pub(crate) fn similarity(&self) -> Option<f64> {
        self.0["similarity"].as_f64()
    }

    fn maybe(&self, key: &str) -> Option<u64> {
        self.0[key].as_u64()
    }

    /// Matched, changed, made as holes.
    #[track_caller]
    pub(crate) fn parts(&self) -> [u64; 3] {
        [self.number("matched_bytes"), self.number("changed_bytes"), self.number("hole_bytes")]
    }

    /// The first error's path and message.
    #[track_caller]
    pub(crate) fn error(&self) -> (&str, &str) {
        let error = &self.0["errors"][0];
        (error["path"].as_str().unwrap_or(""), error["message"].as_str().unwrap())
    }
}
