//! etcd behind TLS, and what goes wrong with certificates. Feature `tls`.
#![cfg(feature = "tls")]

mod support;
mod told;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use headcount::{Builder, Cluster, Error, Tls};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, SanType,
};
use serde_json::{Value, json};
use tempfile::TempDir;
use ureq::tls::{Certificate, ClientCert, PrivateKey, RootCerts, TlsConfig};

use support::etcd::Etcd;
use support::proxy::Proxy;
use told::{SOON, Told, member, observer};

const NAME: &str = "gate/1";

/// Certificates of one authority, as files.
struct Pki {
    dir: TempDir,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate and its key.
struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pki {
    fn new() -> Pki {
        let dir = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        fs::write(dir.path().join("ca.pem"), certificate.pem()).expect("written");
        Pki {
            dir,
            issuer: Issuer::new(params, key),
        }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// For these hosts or addresses, with or without a common name.
    fn issue(&self, file: &str, hosts: &[&str], common_name: Option<&str>) -> Pair {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        if let Some(name) = common_name {
            params.distinguished_name.push(DnType::CommonName, name);
        }
        params.subject_alt_names = hosts
            .iter()
            .map(|host| match host.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*host).try_into().expect("a name")),
            })
            .collect();
        // etcd's gateway shows the server's certificate to etcd itself.
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        let key = KeyPair::generate().expect("a key");
        let signed = params.signed_by(&key, &self.issuer).expect("signed");
        let pair = Pair {
            certificate: self.dir.path().join(format!("{file}.pem")),
            key: self.dir.path().join(format!("{file}.key")),
        };
        fs::write(&pair.certificate, signed.pem()).expect("written");
        fs::write(&pair.key, key.serialize_pem()).expect("written");
        pair
    }

    /// An etcd for `127.0.0.1`.
    #[track_caller]
    fn etcd(&self) -> Etcd {
        let server = self.issue("server", &["127.0.0.1"], None);
        Etcd::options()
            .tls(&server.certificate, &server.key)
            .start()
    }

    /// The same, which wants a certificate of its clients.
    #[track_caller]
    fn strict_etcd(&self) -> Etcd {
        let server = self.issue("server", &["127.0.0.1"], None);
        Etcd::options()
            .tls(&server.certificate, &server.key)
            .client_ca(&self.ca())
            .start()
    }

    fn tls(&self) -> Tls {
        Tls::new().ca_file(self.ca())
    }
}

/// What a start fails with, which must not take until the start time-out.
#[track_caller]
fn refused(builder: Builder) -> Error {
    let started = Instant::now();
    let result = builder.start_timeout(Duration::from_secs(8)).start();
    let took = started.elapsed();
    let error = result.expect_err("refused");
    assert!(took < Duration::from_secs(4), "{took:?}: {error}");
    error
}

#[track_caller]
fn no_tls(error: &Error, words: &str) {
    match error {
        Error::Tls { reason, .. } => assert!(reason.contains(words), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[track_caller]
fn no_setting(error: &Error, words: &[&str]) {
    match error {
        Error::Setting { setting, reason } => {
            assert_eq!(*setting, "tls", "{reason}");
            for words in words {
                assert!(reason.contains(words), "{reason}");
            }
        }
        other => panic!("{other:?}"),
    }
}

/// Registration, watch, update, keepalives, leave: all of it through TLS.
#[test]
fn a_cluster_behind_tls() {
    let pki = Pki::new();
    let etcd = pki.etcd();
    let watcher = observer(etcd.endpoint()).tls(pki.tls()).start();
    let watcher = watcher.expect("an observer");
    let mut peer = Told::by(&watcher);
    let cluster = member(etcd.endpoint(), NAME, 2).tls(pki.tls()).start();
    let cluster = cluster.expect("a member");
    let own = Told::by(&cluster);
    peer.next(SOON, "AddMember gate/1@");
    cluster.update_metadata([("k", "v")]).expect("put");
    peer.next(SOON, "UpdateMember gate/1@");
    let registered = Instant::now();
    support::wait::throughout(Duration::from_secs(3), "registered", || {
        cluster.is_registered()
    });
    assert!(cluster.stats().keepalive_age < Some(registered.elapsed()));
    assert_eq!(own.all("Lost").len() + peer.all("StoreLost").len(), 0);
    cluster.leave().expect("told");
    let gone = peer.next(SOON, "RemoveMember gate/1@");
    assert!(gone.text.ends_with("(announced)"), "{}", gone.text);
}

/// `https` may be left out where TLS is set up.
#[test]
fn an_endpoint_without_scheme_is_https() {
    let pki = Pki::new();
    let etcd = pki.etcd();
    let cluster = observer(etcd.address()).tls(pki.tls()).start();
    assert!(cluster.expect("an observer").is_synced());
}

#[test]
fn an_unknown_issuer_is_named() {
    let (pki, other) = (Pki::new(), Pki::new());
    let etcd = pki.etcd();
    let error = refused(observer(etcd.endpoint()).tls(other.tls()));
    no_tls(&error, "invalid peer certificate");
    // Mozilla's roots do not know it either.
    let error = refused(observer(etcd.endpoint()));
    no_tls(&error, "invalid peer certificate");
    assert!(error.to_string().contains("(tls)"), "{error}");
}

/// An endpoint given as an address, and a certificate that carries only a name.
#[test]
fn the_server_name_stands_for_an_address() {
    let pki = Pki::new();
    let server = pki.issue("named", &["etcd.internal"], None);
    // etcd itself does not check its own name in the gateway.
    let etcd = Etcd::options()
        .tls(&server.certificate, &server.key)
        .start();
    let error = refused(observer(etcd.endpoint()).tls(pki.tls()));
    no_tls(&error, "invalid peer certificate");
    let named = pki.tls().server_name("etcd.internal");
    let cluster = member(etcd.endpoint(), NAME, 2).tls(named).start();
    assert!(cluster.expect("a member").is_registered());
    let error = refused(observer(etcd.endpoint()).tls(pki.tls().server_name("other.internal")));
    no_tls(&error, "invalid peer certificate");
}

#[test]
fn a_client_certificate_is_shown_where_it_is_required() {
    let pki = Pki::new();
    let etcd = pki.strict_etcd();
    let error = refused(observer(etcd.endpoint()).tls(pki.tls()));
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");

    let client = pki.issue("client", &[], None);
    let shown = pki.tls().identity(&client.certificate, &client.key);
    let cluster = member(etcd.endpoint(), NAME, 2).tls(shown).start();
    assert!(cluster.expect("a member").is_registered());

    // Of another authority than etcd trusts.
    let stranger = Pki::new().issue_into(&pki, "stranger");
    let shown = pki.tls().identity(&stranger.certificate, &stranger.key);
    let error = refused(observer(etcd.endpoint()).tls(shown));
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

impl Pki {
    /// Signed by this authority, with its files in the other's folder, which lives longer.
    fn issue_into(&self, other: &Pki, file: &str) -> Pair {
        let pair = self.issue(file, &[], None);
        let moved = Pair {
            certificate: other.dir.path().join(format!("{file}.pem")),
            key: other.dir.path().join(format!("{file}.key")),
        };
        fs::copy(&pair.certificate, &moved.certificate).expect("copied");
        fs::copy(&pair.key, &moved.key).expect("copied");
        moved
    }
}

/// What is wrong with the files is a sentence about the file, and never a panic.
#[test]
fn bad_files_are_named() {
    let pki = Pki::new();
    let (one, two) = (pki.issue("one", &[], None), pki.issue("two", &[], None));
    let path = |name: &str| pki.dir.path().join(name);
    fs::write(path("empty.pem"), "").expect("written");
    fs::write(path("broken.pem"), "-----BEGIN CERTIFICATE-----\n%%%\n").expect("written");
    // No etcd is needed to find out.
    let with = |tls: Tls| refused(observer("https://127.0.0.1:9").tls(tls));
    let ca = |name: &str| with(Tls::new().ca_file(path(name)));
    no_setting(&ca("missing.pem"), &["missing.pem"]);
    no_setting(&ca("empty.pem"), &["empty.pem", "no certificate"]);
    no_setting(&ca("broken.pem"), &["broken.pem"]);
    let pair = |certificate: &Path, key: &Path| with(pki.tls().identity(certificate, key));
    no_setting(&pair(&path("missing.pem"), &one.key), &["missing.pem"]);
    no_setting(
        &pair(&one.certificate, &path("missing.key")),
        &["missing.key"],
    );
    no_setting(
        &pair(&one.certificate, &one.certificate),
        &["one.pem", "no private key"],
    );
    no_setting(&pair(&one.key, &one.key), &["one.key", "no certificate"]);
    let error = pair(&one.certificate, &two.key);
    no_setting(&error, &["one.pem", "two.key", "do not go together"]);
    no_setting(&with(pki.tls().server_name("not a name")), &["not a name"]);
}

#[test]
fn the_wrong_scheme_is_named() {
    let pki = Pki::new();
    let (secure, plain) = (pki.etcd(), Etcd::start());
    let http = format!("http://{}", secure.address());
    let error = refused(observer(http));
    assert!(matches!(error, Error::WrongScheme { .. }), "{error:?}");
    let https = format!("https://{}", plain.address());
    let error = refused(observer(https).tls(pki.tls()));
    assert!(matches!(error, Error::WrongScheme { .. }), "{error:?}");
    assert!(error.to_string().contains("scheme"), "{error}");
}

/// What root does, with a certificate of its own.
fn post(etcd: &Etcd, pki: &Pki, path: &str, body: &Value) -> (u16, String) {
    let client = pki.issue("root", &[], None);
    let pem = |path: &Path| fs::read(path).expect("just written");
    let certificate = |path: &Path| Certificate::from_pem(&pem(path)).expect("a certificate");
    let key = PrivateKey::from_pem(&pem(&client.key)).expect("a key");
    let identity = ClientCert::new_with_certs(&[certificate(&client.certificate)], key);
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::from([certificate(&pki.ca())].into_iter()))
        .client_cert(Some(identity))
        .build();
    let config = ureq::Agent::config_builder()
        .proxy(None)
        .http_status_as_error(false)
        .timeout_global(Some(SOON))
        .tls_config(tls);
    let url = format!("{}{path}", etcd.endpoint());
    let answer = config.build().new_agent().post(url).send(body.to_string());
    let mut answer = answer.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.body_mut().read_to_string().expect("a text"))
}

/// etcd's gateway refuses a client certificate with a common name once authentication is on.
#[test]
fn a_certificate_with_a_name_is_refused_with_authentication_on() {
    let pki = Pki::new();
    let etcd = pki.strict_etcd();
    let named = pki.issue("named", &[], Some("somebody"));
    let nameless = pki.issue("nameless", &[], None);
    let named = pki.tls().identity(&named.certificate, &named.key);
    let nameless = pki.tls().identity(&nameless.certificate, &nameless.key);
    // Off: it does no harm.
    let cluster = observer(etcd.endpoint()).tls(named.clone()).start();
    drop(cluster.expect("an observer"));

    for (path, body) in [
        ("user/add", json!({ "name": "root", "password": "r" })),
        ("role/add", json!({ "name": "root" })),
        ("user/grant", json!({ "user": "root", "role": "root" })),
        ("enable", json!({})),
    ] {
        let (status, text) = post(&etcd, &pki, &format!("/v3/auth/{path}"), &body);
        assert_eq!(status, 200, "{path}: {text}");
    }
    let as_root = |tls: Tls| observer(etcd.endpoint()).credentials("root", "r").tls(tls);
    let error = refused(as_root(named));
    assert!(
        matches!(error, Error::CertificateWithName { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("without CN"), "{error}");
    let cluster: Result<Cluster, Error> = as_root(nameless).start();
    assert!(cluster.expect("an observer").is_synced());
}

/// G12 with TLS: neither a handshake nor a read that hangs holds up the end.
#[test]
fn g12_leave_is_bounded_behind_tls() {
    let pki = Pki::new();
    let etcd = pki.etcd();
    let proxy = Proxy::start(&etcd.address());
    for lost in [false, true] {
        let endpoint = format!("https://{}", proxy.address());
        let cluster = member(endpoint, NAME, 2).tls(pki.tls()).start();
        let cluster = cluster.expect("a member");
        let mut own = Told::by(&cluster);
        match lost {
            false => etcd.pause(),
            true => proxy.black_hole(),
        }
        if lost {
            own.next(SOON, "Lost");
        }
        let started = Instant::now();
        cluster.leave().expect_err("nobody can have been told");
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{took:?}");
        if !lost {
            etcd.resume();
        }
    }
}
