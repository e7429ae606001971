//! User and password against etcd's tokens: one login at a time.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::Error as _;

use super::failure::Failure;
use crate::error::Error;

/// Who we are to etcd.
#[derive(Clone)]
pub(crate) struct Credentials {
    pub user: String,
    pub password: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// The token in use, shared by all threads.
pub(super) struct Auth {
    credentials: Option<Credentials>,
    state: Mutex<State>,
}

#[derive(Clone)]
enum State {
    /// Not asked yet.
    Fresh,
    /// etcd has authentication off: it knows no tokens.
    Off,
    Token(Arc<str>),
}

impl Auth {
    pub fn new(credentials: Option<Credentials>) -> Self {
        Auth {
            credentials,
            state: Mutex::new(State::Fresh),
        }
    }

    /// The token to send; logs in first where there is none yet.
    pub fn token(
        &self,
        patience: Duration,
        login: impl FnOnce(&Credentials) -> Result<Arc<str>, Failure>,
    ) -> Result<Option<Arc<str>>, Failure> {
        let Some(credentials) = &self.credentials else {
            return Ok(None);
        };
        // Whoever holds the lock is logging in; its result serves us too.
        let mut state = self.state.try_lock_for(patience).ok_or_else(busy)?;
        if let State::Fresh = *state {
            *state = match login(credentials) {
                Ok(token) => State::Token(token),
                Err(Failure::AuthOff) => {
                    log::info!("etcd has authentication off; credentials are not used");
                    State::Off
                }
                Err(Failure::Final(Error::WrongPassword { .. })) => {
                    let user = credentials.user.clone();
                    return Err(Failure::Final(Error::WrongPassword { user }));
                }
                Err(failure) => return Err(failure),
            };
        }
        Ok(match &*state {
            State::Token(token) => Some(Arc::clone(token)),
            State::Fresh | State::Off => None,
        })
    }

    /// etcd refused `used`. Whoever asks next logs in, unless somebody has meanwhile.
    pub fn refused(&self, used: Option<&Arc<str>>) {
        let Some(mut state) = self.state.try_lock() else {
            // Somebody is logging in: there is a newer one in a moment.
            return;
        };
        let current = match (&*state, used) {
            (State::Token(token), Some(used)) => Arc::ptr_eq(token, used),
            (State::Off, None) => true,
            _ => false,
        };
        if current {
            *state = State::Fresh;
        }
    }

    /// A stream found the token out of date; which one it was sent with is long forgotten.
    pub fn expire(&self) {
        if let Some(mut state) = self.state.try_lock() {
            *state = State::Fresh;
        }
    }

    pub fn has_credentials(&self) -> bool {
        self.credentials.is_some()
    }
}

/// The token that a login's reply gives: fit for a header, or it is none.
pub(crate) fn read_token(bytes: &[u8]) -> Result<Arc<str>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Reply {
        token: String,
    }
    let Reply { token } = serde_json::from_slice(bytes)?;
    match !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic()) {
        true => Ok(token.into()),
        // Not to be told: it may be most of a good one.
        false => Err(serde_json::Error::custom("a token that no header can hold")),
    }
}

fn busy() -> Failure {
    let reason = "another thread's login took longer than this request may".into();
    Failure::Elsewhere(Error::Protocol { reason })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_millis(10);

    fn auth() -> Auth {
        Auth::new(Some(Credentials {
            user: "u".into(),
            password: "hunter2".into(),
        }))
    }

    #[test]
    fn one_login_serves_all_until_it_is_refused() {
        let auth = auth();
        let first = auth.token(NOW, |_| Ok("one".into())).unwrap().unwrap();
        let again = auth
            .token(NOW, |_| panic!("no second login"))
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&first, &again));
        auth.refused(Some(&first));
        let second = auth.token(NOW, |_| Ok("two".into())).unwrap().unwrap();
        // A late refusal of the old token does not cost the new one.
        auth.refused(Some(&first));
        let kept = auth
            .token(NOW, |_| panic!("no third login"))
            .unwrap()
            .unwrap();
        assert!(Arc::ptr_eq(&second, &kept));
    }

    #[test]
    fn auth_off_sends_nothing_until_it_is_switched_on() {
        let auth = auth();
        assert!(
            auth.token(NOW, |_| Err(Failure::AuthOff))
                .unwrap()
                .is_none()
        );
        assert!(
            auth.token(NOW, |_| panic!("known to be off"))
                .unwrap()
                .is_none()
        );
        auth.refused(None);
        assert!(auth.token(NOW, |_| Ok("t".into())).unwrap().is_some());
    }

    #[test]
    fn g13_a_token_is_fit_for_a_header() {
        let read = |json: &str| read_token(json.as_bytes()).map_err(|e| e.to_string());
        assert_eq!(read(r#"{"token":"a.7"}"#).as_deref(), Ok("a.7"));
        for bad in [
            r#"{"token":"a\r\nb"}"#,
            r#"{"token":""}"#,
            r#"{"token":"a b"}"#,
            "{}",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
        assert!(
            !read(r#"{"token":"hunter2\n"}"#)
                .unwrap_err()
                .contains("hunter2")
        );
    }

    #[test]
    fn wrong_password_names_the_user_only() {
        let wrong = Error::WrongPassword {
            user: String::new(),
        };
        let failure = auth()
            .token(NOW, |_| Err(Failure::Final(wrong)))
            .unwrap_err();
        let text = failure.into_error().to_string();
        assert!(
            text.contains("\"u\"") && !text.contains("hunter2"),
            "{text}"
        );
        assert!(!format!("{:?}", auth().credentials).contains("hunter2"));
    }
}
