//! Any bytes as the answer to any request, under any HTTP status.

use std::time::Duration;

use super::plain::{Json, Read, Wrong};
use crate::error::Error;
use crate::etcd::{Failure, Looked, reading};
use crate::kv::Kv;

/// What is told of an error, at most, in bytes: it stands in logs.
const TOLD: usize = 2000;

/// Every answer is read as the plain reader reads it, or is a typed error that fits in one line of
/// a log.
///
/// The first byte says what was asked, the next two the status.
pub fn replies(input: &[u8]) {
    let [asked, high, low, body @ ..] = input else {
        return;
    };
    let status = u16::from_be_bytes([*high, *low]);
    if status != 200 {
        return refusal(status, body);
    }
    let tree = Json::parse(body);
    let plain = |read: fn(&Json) -> Read<Answer>| match &tree {
        Ok(tree) => read(tree),
        Err(Wrong::Refused) => Err(Wrong::Refused),
        Err(Wrong::Unsure) => Err(Wrong::Unsure),
    };
    match asked % 6 {
        0 => check(reading::range(body).map(range_of), plain(range)),
        1 => check(reading::txn(body).map(txn_of), plain(txn)),
        2 => check(reading::granted(body).map(Answer::Granted), plain(granted)),
        3 => check(reading::left(body).map(left_of), plain(left)),
        4 => check(reading::renewed(body).map(renewed_of), plain(renewed)),
        _ => check(
            reading::token(body).map(|token| Answer::Token(token.to_string())),
            plain(token),
        ),
    }
}

fn check(read: Result<Answer, serde_json::Error>, plain: Read<Answer>) {
    match (read, plain) {
        (_, Err(Wrong::Unsure)) => {}
        (Ok(read), Ok(plain)) => assert_eq!(read, plain),
        (Err(_), Err(Wrong::Refused)) => {}
        (Ok(read), Err(Wrong::Refused)) => panic!("{read:?} should have been refused"),
        (Err(e), Ok(plain)) => panic!("{e}, in place of {plain:?}"),
    }
}

#[derive(Debug, PartialEq)]
enum Answer {
    Range {
        kvs: Vec<Kv>,
        more: bool,
        revision: i64,
        cluster: u64,
    },
    Txn {
        succeeded: bool,
        revision: i64,
        found: Vec<Option<Kv>>,
    },
    Granted((i64, Duration)),
    /// Left, granted, term, cluster, revision.
    Left(Result<(Duration, Duration, u64, u64, i64), u64>),
    Renewed(Duration),
    Refused(String),
    Token(String),
}

fn range_of(page: crate::etcd::Page) -> Answer {
    Answer::Range {
        kvs: page.kvs,
        more: page.more,
        revision: page.revision,
        cluster: page.cluster,
    }
}

fn range(tree: &Json) -> Read<Answer> {
    let header = tree.header()?;
    let more = tree.flag("more")?;
    Ok(Answer::Range {
        kvs: all(tree.list("kvs")?)?,
        more,
        revision: header.revision,
        cluster: header.cluster,
    })
}

fn all(list: &[Json]) -> Read<Vec<Kv>> {
    let coded: Vec<_> = list.iter().map(Json::kv).collect::<Read<_>>()?;
    coded.iter().map(|kv| kv.decode()).collect()
}

fn txn_of(reply: crate::etcd::TxnReply) -> Answer {
    Answer::Txn {
        succeeded: reply.succeeded,
        revision: reply.revision,
        found: reply.found,
    }
}

fn txn(tree: &Json) -> Read<Answer> {
    let header = tree.header()?;
    let succeeded = tree.flag("succeeded")?;
    let mut found = Vec::new();
    for response in tree.list("responses")? {
        let Some(range) = response.optional("response_range")? else {
            continue;
        };
        range.number::<i64>("count")?;
        let coded: Vec<_> = range
            .list("kvs")?
            .iter()
            .map(Json::kv)
            .collect::<Read<_>>()?;
        found.push(coded.into_iter().next());
    }
    let found = found.into_iter().map(|kv| kv.map(|kv| kv.decode()));
    Ok(Answer::Txn {
        succeeded,
        revision: header.revision,
        found: found.map(Option::transpose).collect::<Read<_>>()?,
    })
}

/// A number of seconds, none beyond a year.
fn seconds(ttl: i64) -> Duration {
    Duration::from_secs((ttl as u64).min(365 * 24 * 3600))
}

fn granted(tree: &Json) -> Read<Answer> {
    let (id, ttl): (i64, i64) = (tree.number("ID")?, tree.number("TTL")?);
    match id != 0 && ttl > 0 {
        true => Ok(Answer::Granted((id, seconds(ttl)))),
        false => Err(Wrong::Refused),
    }
}

fn left_of(looked: Looked) -> Answer {
    Answer::Left(match looked {
        Looked::Lives(left) => Ok((
            left.remaining,
            left.granted,
            left.term,
            left.cluster,
            left.revision,
        )),
        Looked::Gone { cluster } => Err(cluster),
        Looked::Behind => unreachable!("no key was asked for"),
    })
}

fn left(tree: &Json) -> Read<Answer> {
    let header = tree.header()?;
    let (ttl, granted): (i64, i64) = (tree.number("TTL")?, tree.number("grantedTTL")?);
    let (term, cluster) = (header.term, header.cluster);
    match (granted > 0, ttl < 0) {
        (true, _) => Ok(Answer::Left(Ok((
            seconds(ttl.max(0)),
            seconds(granted),
            term,
            cluster,
            header.revision,
        )))),
        (false, true) => Ok(Answer::Left(Err(cluster))),
        (false, false) => Err(Wrong::Refused),
    }
}

fn renewed_of(answer: Result<Duration, Failure>) -> Answer {
    match answer {
        Ok(ttl) => Answer::Renewed(ttl),
        Err(failure) => Answer::Refused(class(&failure)),
    }
}

fn renewed(tree: &Json) -> Read<Answer> {
    let error = tree.optional("error")?.map(error).transpose()?;
    let (id, ttl): (i64, i64) = match tree.optional("result")? {
        Some(result) => (result.number("ID")?, result.number("TTL")?),
        None => (0, 0),
    };
    match error {
        Some((code, message)) => Ok(Answer::Refused(meaning(code, message))),
        // Of which lease it speaks is what makes it an answer.
        None if id == 0 => Err(Wrong::Refused),
        None if ttl <= 0 => Ok(Answer::Refused("lease gone".into())),
        None => Ok(Answer::Renewed(seconds(ttl))),
    }
}

/// A token is sent as a header.
fn token(tree: &Json) -> Read<Answer> {
    let token = tree.text("token")?;
    let fit = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    match fit {
        true => Ok(Answer::Token(token.into())),
        false => Err(Wrong::Refused),
    }
}

fn error(tree: &Json) -> Read<(u32, &str)> {
    let (code, grpc): (u32, u32) = (tree.number("code")?, tree.number("grpc_code")?);
    Ok((code.max(grpc), tree.text("message")?))
}

fn refusal(status: u16, body: &[u8]) {
    let failure = reading::refusal(&"http://e:1".into(), status, body, "range");
    let read = class(&failure);
    let texts = match Json::parse(body) {
        Ok(tree) => match unary_or_streamed(&tree) {
            Ok((code, message)) => return assert_eq!(read, meaning(code, message)),
            Err(Wrong::Refused) => true,
            Err(Wrong::Unsure) => false,
        },
        Err(wrong) => wrong == Wrong::Refused,
    };
    if texts {
        let told = [
            "protocol",
            "no gateway",
            "wrong scheme",
            "named certificate",
        ];
        assert!(told.contains(&&*read), "{read}");
        assert!(status != 404 || read != "protocol", "{read}");
    }
}

fn unary_or_streamed(tree: &Json) -> Read<(u32, &str)> {
    let told = |found: Read<_>| match found {
        Ok((0, _)) => Err(Wrong::Refused),
        other => other,
    };
    match told(error(tree)) {
        Err(Wrong::Refused) => told(error(tree.get("error")?.ok_or(Wrong::Refused)?)),
        other => other,
    }
}

/// What a gRPC status means, in a word.
pub fn meaning(code: u32, message: &str) -> String {
    let says = |words: &str| message.contains(words);
    let word = match code {
        11 if says("compacted") || says("future revision") => "no such revision",
        5 if says("lease not found") => "lease gone",
        3 if says("auth store is old") || says("user name is empty") => "unauthenticated",
        3 if says("authentication failed") => "wrong password",
        8 if says("space exceeded") => "no space",
        9 if says("authentication is not enabled") => "authentication off",
        7 => "denied",
        16 => "unauthenticated",
        2 | 4 | 13 | 14 => return format!("elsewhere, etcd {code}"),
        _ => return format!("etcd {code}"),
    };
    word.into()
}

/// What a failure means, in a word.
pub fn class(failure: &Failure) -> String {
    let error = failure.clone().into_error();
    let told = error.to_string();
    assert!(told.len() <= TOLD, "an error of {} bytes", told.len());
    assert!(!told.contains(char::is_control), "{told:?}");
    let word = match failure {
        Failure::NoSuchRevision => "no such revision",
        Failure::LeaseGone => "lease gone",
        Failure::Unauthenticated | Failure::TokenExpired => "unauthenticated",
        Failure::NoSpace => "no space",
        Failure::AuthOff => "authentication off",
        Failure::Elsewhere(Error::Etcd { code, .. }) => return format!("elsewhere, etcd {code}"),
        Failure::Elsewhere(error) | Failure::Unfinished(error) | Failure::Final(error) => {
            match error {
                Error::Etcd { code, .. } => return format!("etcd {code}"),
                Error::Protocol { .. } => "protocol",
                Error::TooLarge { .. } => "too large",
                Error::WrongPassword { .. } => "wrong password",
                Error::PermissionDenied { .. } => "denied",
                Error::NotAGateway { .. } => "no gateway",
                Error::WrongScheme { .. } => "wrong scheme",
                Error::CertificateWithName { .. } => "named certificate",
                other => panic!("no answer means {other:?}"),
            }
        }
    };
    word.into()
}
