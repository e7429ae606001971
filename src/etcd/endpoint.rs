//! One etcd endpoint as the user gave it.

use std::fmt;
use std::sync::Arc;

/// `http://host:2379`, checked.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// Without a trailing slash.
    pub url: Arc<str>,
    pub secure: bool,
    pub host: Box<str>,
    pub port: u16,
}

impl Endpoint {
    /// Reads a URL; without a scheme it is `http`, or `https` where TLS is set up.
    pub fn parse(text: &str, tls: bool) -> Result<Endpoint, String> {
        // First of all: no other refusal may quote it.
        if text.contains('@') {
            return Err("a user and password belong into `credentials`, not into the URL".into());
        }
        let given = match text.contains("://") {
            true => text.to_owned(),
            false => format!("{}://{text}", if tls { "https" } else { "http" }),
        };
        let uri: ureq::http::Uri = given
            .parse()
            .map_err(|e| format!("{text:?} is not a URL such as http://host:2379: {e}"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            other => {
                return Err(format!(
                    "{text:?}: scheme {other:?} is neither http nor https"
                ));
            }
        };
        if uri.path() != "/" && !uri.path().is_empty() || uri.query().is_some() {
            return Err(format!("{text:?}: an endpoint has no path"));
        }
        let authority = uri
            .authority()
            .ok_or_else(|| format!("{text:?} names no host"))?;
        if authority.host().is_empty() {
            return Err(format!("{text:?} names no host"));
        }
        let port = match authority.port() {
            Some(port) if port.as_u16() == 0 => return Err(format!("{text:?}: port 0")),
            Some(port) => port.as_u16(),
            None if authority.as_str() != authority.host() => {
                return Err(format!("{text:?}: the port is not a number up to 65535"));
            }
            None => 2379,
        };
        let host = authority.host();
        let scheme = if secure { "https" } else { "http" };
        let url = format!("{scheme}://{host}:{port}");
        Ok(Endpoint {
            url: url.into(),
            secure,
            host: host.into(),
            port,
        })
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_ones_and_bad_ones() {
        let url = |text, tls| Endpoint::parse(text, tls).map(|e| e.url.to_string());
        assert_eq!(url("http://a:1", false).unwrap(), "http://a:1");
        assert_eq!(url("https://a/", false).unwrap(), "https://a:2379");
        assert_eq!(
            url("localhost:2379", false).unwrap(),
            "http://localhost:2379"
        );
        assert_eq!(url("localhost", true).unwrap(), "https://localhost:2379");
        assert_eq!(url("http://[::1]:5", false).unwrap(), "http://[::1]:5");
        for bad in [
            "",
            "ftp://a",
            "http://",
            "http://a:0",
            "http://a:99999",
            "http://a/x",
            "a b",
        ] {
            assert!(url(bad, false).is_err(), "{bad:?}");
        }
        for leak in [
            "http://root:secret@a:1",
            "ftp://root:secret@a",
            "root:se cret@a/x",
        ] {
            let refused = url(leak, false).unwrap_err();
            assert!(
                refused.contains("credentials") && !refused.contains("cret@"),
                "{refused}"
            );
        }
    }
}
