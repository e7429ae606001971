//! TLS settings, and what is made of them (feature `tls`).

use std::path::PathBuf;

/// How to speak TLS with `https` endpoints. Needs the feature `tls`.
///
/// Files are PEM and are read once, at [`start`](crate::Builder::start).
#[derive(Debug, Clone, Default)]
pub struct Tls {
    pub(crate) ca_file: Option<PathBuf>,
    pub(crate) identity: Option<(PathBuf, PathBuf)>,
    pub(crate) server_name: Option<String>,
}

impl Tls {
    /// TLS with Mozilla's root certificates and no client certificate.
    pub fn new() -> Self {
        Tls::default()
    }

    /// Trust only the issuers in this file. Symptom of a wrong one: [`Error::Tls`] naming an
    /// unknown issuer.
    ///
    /// [`Error::Tls`]: crate::Error::Tls
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.ca_file = Some(path.into());
        self
    }

    /// Show this client certificate (chain) and prove it with this key. The certificate should
    /// carry no common name: with authentication on, etcd's gateway refuses those.
    pub fn identity(
        mut self,
        certificate_file: impl Into<PathBuf>,
        key_file: impl Into<PathBuf>,
    ) -> Self {
        self.identity = Some((certificate_file.into(), key_file.into()));
        self
    }

    /// The name that etcd's certificate must carry, where it is not the host in the endpoint: for
    /// endpoints given as addresses, or behind a tunnel.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }
}

/// What the HTTP client needs of it.
#[derive(Clone)]
pub(crate) struct TlsMaterial {
    #[cfg(feature = "tls")]
    pub config: ureq::tls::TlsConfig,
    pub server_name: Option<String>,
}

#[cfg(not(feature = "tls"))]
impl Tls {
    pub(crate) fn load(&self) -> Result<TlsMaterial, String> {
        Err("TLS needs Headcount's feature `tls`, which this program was built without".into())
    }
}

#[cfg(feature = "tls")]
mod rustls_backed {
    use std::path::Path;
    use std::sync::Arc;

    use rustls::pki_types::PrivateKeyDer;
    use rustls::pki_types::pem::PemObject;
    use ureq::tls::{
        Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem,
    };

    use super::{Tls, TlsMaterial};
    use crate::error::Error;

    impl Tls {
        /// Reads the files. The sentence in an error names the file at fault.
        pub(crate) fn load(&self) -> Result<TlsMaterial, String> {
            let mut config = TlsConfig::builder();
            if let Some(path) = &self.ca_file {
                config = config.root_certs(RootCerts::from(certificates(path)?.into_iter()));
            }
            if let Some((certificate_file, key_file)) = &self.identity {
                let chain = certificates(certificate_file)?;
                let pem = read(key_file)?;
                let no_key = |e: String| format!("{}: no private key: {e}", key_file.display());
                let der = PrivateKeyDer::from_pem_slice(&pem).map_err(|e| no_key(e.to_string()))?;
                let key = PrivateKey::from_pem(&pem).map_err(|e| no_key(e.to_string()))?;
                check_pair(&chain, der).map_err(|e| {
                    let (cert, key) = (certificate_file.display(), key_file.display());
                    format!("{cert} and {key} do not go together: {e}")
                })?;
                config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
            }
            if let Some(name) = &self.server_name {
                let parsed = rustls::pki_types::ServerName::try_from(name.as_str());
                parsed.map_err(|e| format!("server name {name:?}: {e}"))?;
            }
            Ok(TlsMaterial {
                config: config.build(),
                server_name: self.server_name.clone(),
            })
        }
    }

    fn read(path: &Path) -> Result<Vec<u8>, String> {
        std::fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
    }

    fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, String> {
        let pem = read(path)?;
        let mut found = Vec::new();
        for item in parse_pem(&pem) {
            match item.map_err(|e| format!("{}: {e}", path.display()))? {
                PemItem::Certificate(certificate) => found.push(certificate),
                _ => continue,
            }
        }
        match found.is_empty() {
            true => Err(format!("{}: no certificate in it", path.display())),
            false => Ok(found),
        }
    }

    /// The HTTP client panics on a key that does not fit its certificate; so it is never given one.
    fn check_pair(chain: &[Certificate], key: PrivateKeyDer<'static>) -> Result<(), rustls::Error> {
        let chain = chain.iter().map(|c| c.der().to_vec().into()).collect();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_client_auth_cert(chain, key)
            .map(drop)
    }

    fn rustls_error(error: &ureq::Error) -> Option<&rustls::Error> {
        match error {
            ureq::Error::Rustls(e) => Some(e),
            ureq::Error::Io(e) => e.get_ref()?.downcast_ref(),
            _ => None,
        }
    }

    pub(in crate::etcd) fn is_tls(error: &ureq::Error) -> bool {
        rustls_error(error).is_some() || matches!(error, ureq::Error::Tls(_))
    }

    pub(in crate::etcd) fn error(endpoint: Arc<str>, error: &ureq::Error) -> Error {
        match rustls_error(error) {
            // What a plain HTTP server answers to a TLS greeting.
            Some(rustls::Error::InvalidMessage(_)) => Error::WrongScheme { endpoint },
            _ => Error::Tls {
                endpoint,
                reason: error.to_string(),
            },
        }
    }
}

#[cfg(feature = "tls")]
pub(super) use rustls_backed::{error, is_tls};
