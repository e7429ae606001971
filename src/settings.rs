//! The settings as values: defaults, and what makes no sense together.

use std::time::Duration;

use crate::error::Error;
use crate::etcd::{Credentials, Endpoint, Tls};
use crate::member::{MAX_NAME_BYTES, RESERVED};

/// What to do when another live instance is registered under our (type, id).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum OnConflict {
    /// End its registration and take its place; it is told `Displaced`. Right for a restart under
    /// a fixed name, where the old registration is a leftover.
    #[default]
    TakeOver,
    /// Wait until it is gone. [`start`](crate::Builder::start) does not wait for that: `Registered`
    /// comes when it is our turn. Right for a stand-by.
    Wait,
    /// Give up with [`Error::Conflict`]. Right where a second instance is an operator's mistake.
    Fail,
}

/// Whose heartbeats to check: whether the members' leases are renewed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Check {
    /// Everybody's. Who is late is suspected, and each silent end is judged.
    #[default]
    All,
    /// Only those of members that don't say when they leave, such as Pitaya's servers in Go: their
    /// leaving is told from their crash. The others are not suspected, and their silent end is
    /// `ServerDown unknown`.
    Silent,
    /// Nobody's: no request is made for it. A silent end is `ServerDown unknown`.
    Nobody,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub endpoints: Vec<String>,
    pub prefix: String,
    pub credentials: Option<Credentials>,
    pub tls: Option<Tls>,
    pub member: Option<(String, String)>,
    pub metadata: Vec<(String, String)>,
    pub frontend: bool,
    pub hostname: Option<String>,
    pub ttl: Duration,
    pub on_conflict: OnConflict,
    pub check: Check,
    pub check_rate: u32,
    pub verdict_timeout: Duration,
    pub mass_loss_share: f64,
    pub mass_loss_hold: Duration,
    pub only_types: Vec<String>,
    pub except_types: Vec<String>,
    pub connect_timeout: Duration,
    pub request_timeout: Duration,
    pub stall_bound: Duration,
    pub reconcile_interval: Duration,
    pub backoff: (Duration, Duration),
    pub start_timeout: Duration,
    pub start_without_store: bool,
    pub leave_timeout: Duration,
    pub drain_timeout: Duration,
    pub max_value_bytes: usize,
    pub max_frame_bytes: usize,
    pub max_members: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            endpoints: vec!["http://127.0.0.1:2379".into()],
            prefix: "pitaya/".into(),
            credentials: None,
            tls: None,
            member: None,
            metadata: Vec::new(),
            frontend: false,
            hostname: None,
            ttl: Duration::from_secs(10),
            on_conflict: OnConflict::default(),
            check: Check::default(),
            check_rate: 50,
            verdict_timeout: Duration::from_millis(200),
            mass_loss_share: 0.5,
            mass_loss_hold: Duration::from_secs(5),
            only_types: Vec::new(),
            except_types: Vec::new(),
            connect_timeout: Duration::from_secs(1),
            request_timeout: Duration::from_secs(3),
            stall_bound: Duration::from_secs(10),
            reconcile_interval: Duration::from_secs(60),
            backoff: (Duration::from_millis(100), Duration::from_secs(5)),
            start_timeout: Duration::from_secs(10),
            start_without_store: false,
            leave_timeout: Duration::from_secs(1),
            drain_timeout: Duration::from_millis(500),
            max_value_bytes: 64 * 1024,
            max_frame_bytes: 16 * 1024 * 1024,
            max_members: 100_000,
        }
    }
}

fn refuse<T>(setting: &'static str, reason: impl Into<String>) -> Result<T, Error> {
    Err(Error::Setting {
        setting,
        reason: reason.into(),
    })
}

impl Settings {
    /// The endpoints, read; or the first setting that makes no sense.
    pub fn check(&self) -> Result<Vec<Endpoint>, Error> {
        self.check_prefix()?;
        self.check_member()?;
        self.check_times()?;
        self.check_limits()?;
        let both = self
            .only_types
            .iter()
            .find(|t| self.except_types.contains(t));
        if let Some(both) = both {
            return refuse(
                "except_type",
                format!("{both:?} is both wanted and excluded"),
            );
        }
        if matches!(&self.credentials, Some(c) if c.user.is_empty()) {
            return refuse("credentials", "the user is empty");
        }
        if self.endpoints.is_empty() {
            return refuse("endpoints", "there are none");
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        for text in &self.endpoints {
            match Endpoint::parse(text, self.tls.is_some()) {
                Ok(endpoint) if endpoint.secure && !cfg!(feature = "tls") => {
                    let reason = format!("{text:?}: https needs Headcount's feature `tls`");
                    return refuse("endpoints", reason);
                }
                Ok(endpoint) if endpoints.contains(&endpoint) => {
                    return refuse("endpoints", format!("{text:?} is given twice"));
                }
                Ok(endpoint) => endpoints.push(endpoint),
                Err(reason) => return refuse("endpoints", reason),
            }
        }
        if self.tls.is_some() && !endpoints.iter().any(|endpoint| endpoint.secure) {
            return refuse("tls", "no endpoint is https, so nothing would use it");
        }
        Ok(endpoints)
    }

    fn check_prefix(&self) -> Result<(), Error> {
        match self.prefix.strip_suffix('/') {
            None => refuse(
                "prefix",
                format!("{:?} does not end in a slash", self.prefix),
            ),
            Some("") => refuse("prefix", "it is empty but for its slash"),
            Some(name) if name.contains('/') => refuse(
                "prefix",
                format!("{:?} is more than one segment", self.prefix),
            ),
            Some(_) => Ok(()),
        }
    }

    fn check_member(&self) -> Result<(), Error> {
        let Some((server_type, id)) = &self.member else {
            for (setting, given) in [
                ("metadata", !self.metadata.is_empty()),
                ("frontend", self.frontend),
                ("hostname", self.hostname.is_some()),
            ] {
                if given {
                    let reason = "without `member` nothing is registered to carry it";
                    return refuse(setting, reason);
                }
            }
            return Ok(());
        };
        for (what, part) in [("type", server_type), ("id", id)] {
            if part.is_empty() {
                return refuse("member", format!("the {what} is empty"));
            }
            if part.contains('/') || part.chars().any(char::is_control) {
                let reason = format!("the {what} {part:?} has a slash or a control character");
                return refuse("member", reason);
            }
        }
        let length = server_type.len() + 1 + id.len();
        if length > MAX_NAME_BYTES {
            let reason = format!("type/id takes {length} bytes; at most {MAX_NAME_BYTES}");
            return refuse("member", reason);
        }
        check_metadata(self.metadata.iter().map(|(k, _)| k.as_str()))
    }

    fn check_times(&self) -> Result<(), Error> {
        let day = Duration::from_secs(24 * 3600);
        let ms = Duration::from_millis;
        for (setting, value, least, most) in [
            ("ttl", self.ttl, ms(2000), day),
            ("connect_timeout", self.connect_timeout, ms(10), day),
            ("request_timeout", self.request_timeout, ms(10), day),
            ("stall_bound", self.stall_bound, ms(500), day),
            ("reconcile_interval", self.reconcile_interval, ms(100), day),
            ("backoff", self.backoff.0, ms(1), day),
            ("backoff", self.backoff.1, ms(1), day),
            ("start_timeout", self.start_timeout, ms(10), day),
            ("leave_timeout", self.leave_timeout, ms(10), day),
            ("drain_timeout", self.drain_timeout, ms(0), day),
            ("verdict_timeout", self.verdict_timeout, ms(0), ms(10_000)),
            ("mass_loss_hold", self.mass_loss_hold, ms(0), day),
        ] {
            if value < least || value > most {
                return refuse(
                    setting,
                    format!("{value:?} is not within {least:?}..{most:?}"),
                );
            }
        }
        if self.ttl.subsec_nanos() != 0 {
            return refuse("ttl", format!("{:?} is not whole seconds", self.ttl));
        }
        if self.backoff.1 < self.backoff.0 {
            return refuse("backoff", "the longest wait is shorter than the first");
        }
        if self.request_timeout > self.stall_bound.mul_f64(0.9) {
            let reason = format!(
                "{:?} leaves no room in a stall_bound of {:?}: at most 9/10 of it",
                self.request_timeout, self.stall_bound
            );
            return refuse("request_timeout", reason);
        }
        Ok(())
    }

    fn check_limits(&self) -> Result<(), Error> {
        if !(1..=100_000).contains(&self.check_rate) {
            let reason = "it must be 1..100000 a second; `check` turns checking off";
            return refuse("check_rate", reason);
        }
        if !(0.0..=1.0).contains(&self.mass_loss_share) {
            return refuse("mass_loss_share", "it is a part of the whole, 0.0 to 1.0");
        }
        if self.max_members == 0 {
            return refuse("max_members", "0 lets nobody in");
        }
        if self.max_value_bytes < 256 {
            return refuse("max_value_bytes", "below 256 bytes hardly a server fits");
        }
        if self.max_frame_bytes > 1 << 30 {
            return refuse("max_frame_bytes", "beyond 1 GiB it bounds nothing");
        }
        if self.max_frame_bytes < 64 * 1024 || self.max_frame_bytes / 2 < self.max_value_bytes {
            let reason = "it must hold a reply with the largest value in base64: at least 64 KiB \
                          and twice max_value_bytes";
            return refuse("max_frame_bytes", reason);
        }
        Ok(())
    }
}

/// Metadata that users may set.
pub(crate) fn check_metadata<'a>(keys: impl Iterator<Item = &'a str>) -> Result<(), Error> {
    for key in keys {
        if key.starts_with(RESERVED) {
            let reason = format!("{key:?}: keys that begin with {RESERVED:?} are Headcount's own");
            return refuse("metadata", reason);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_make_sense() {
        assert_eq!(Settings::default().check().unwrap().len(), 1);
    }

    #[test]
    fn nonsense_is_refused_with_the_settings_name() {
        let ms = Duration::from_millis;
        type Spoil = Box<dyn Fn(&mut Settings)>;
        let member = |t: &str, id: &str| -> Spoil {
            let pair = (t.to_owned(), id.to_owned());
            Box::new(move |s| s.member = Some(pair.clone()))
        };
        let cases: Vec<(&str, Spoil)> = vec![
            ("prefix", Box::new(|s| s.prefix = "pitaya".into())),
            ("prefix", Box::new(|s| s.prefix = "/".into())),
            ("prefix", Box::new(|s| s.prefix = "a/b/".into())),
            ("member", member("", "1")),
            ("member", member("gate", "")),
            ("member", member("ga/te", "1")),
            ("member", member("gate", "1\n")),
            ("member", member("gate", &"x".repeat(MAX_NAME_BYTES - 4))),
            (
                "metadata",
                Box::new(|s| s.metadata = vec![("a".into(), "b".into())]),
            ),
            (
                "metadata",
                Box::new(|s| {
                    s.member = Some(("gate".into(), "1".into()));
                    s.metadata = vec![("headcount.x".into(), "b".into())];
                }),
            ),
            ("frontend", Box::new(|s| s.frontend = true)),
            ("hostname", Box::new(|s| s.hostname = Some("h".into()))),
            ("ttl", Box::new(move |s| s.ttl = ms(1000))),
            ("ttl", Box::new(move |s| s.ttl = ms(2500))),
            (
                "connect_timeout",
                Box::new(|s| s.connect_timeout = Duration::ZERO),
            ),
            (
                "request_timeout",
                Box::new(|s| s.request_timeout = Duration::from_secs(10)),
            ),
            ("stall_bound", Box::new(move |s| s.stall_bound = ms(100))),
            ("backoff", Box::new(move |s| s.backoff = (ms(100), ms(50)))),
            (
                "backoff",
                Box::new(move |s| s.backoff = (ms(100), Duration::MAX)),
            ),
            (
                "reconcile_interval",
                Box::new(|s| s.reconcile_interval = Duration::ZERO),
            ),
            ("endpoints", Box::new(|s| s.endpoints.clear())),
            (
                "endpoints",
                Box::new(|s| s.endpoints = vec!["ftp://a".into()]),
            ),
            (
                "endpoints",
                Box::new(|s| s.endpoints = vec!["a:1".into(), "http://a:1/".into()]),
            ),
            ("max_members", Box::new(|s| s.max_members = 0)),
            ("max_value_bytes", Box::new(|s| s.max_value_bytes = 1)),
            ("max_frame_bytes", Box::new(|s| s.max_frame_bytes = 1)),
            (
                "max_frame_bytes",
                Box::new(|s| s.max_frame_bytes = usize::MAX),
            ),
            (
                "max_frame_bytes",
                Box::new(|s| s.max_value_bytes = usize::MAX),
            ),
            ("tls", Box::new(|s| s.tls = Some(Tls::new()))),
            (
                "except_type",
                Box::new(|s| {
                    s.only_types = vec!["a".into()];
                    s.except_types = vec!["a".into()];
                }),
            ),
        ];
        for (wanted, spoil) in cases {
            let mut settings = Settings::default();
            spoil(&mut settings);
            match settings.check() {
                Err(Error::Setting { setting, reason }) => {
                    assert_eq!(setting, wanted, "{reason}");
                    assert!(reason.len() > 5);
                }
                other => panic!("{wanted}: {other:?}"),
            }
        }
    }

    #[cfg(not(feature = "tls"))]
    #[test]
    fn https_without_the_feature_is_a_clear_error() {
        let endpoints = vec!["https://a:1".into()];
        let error = Settings {
            endpoints,
            ..Settings::default()
        }
        .check()
        .unwrap_err();
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}
