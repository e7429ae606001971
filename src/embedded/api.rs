//! Requests to replies: etcd's HTTP paths.

use std::time::{Duration, Instant};

use serde::Deserialize;

use super::connection::Request;
use super::refusal::{NOT_FOUND, Refusal, UNIMPLEMENTED};
use super::reply::{
    self, DeletedOut, ErrorOut, Header, HeaderOut, KvOut, LeaseIdOut, LeaseOut, LeasesOut, PutOut,
    StatusOut, to_json, to_line,
};
use super::request::{
    Authenticate, Compaction, DeleteRange, Empty, Grant, LeaseId, Put, Range, TimeToLive, Txn,
};
use super::store::Store;
use super::watches::Watches;
use super::wire::{Base64, Text};

/// The etcd whose replies these are.
const VERSION: &str = "3.5.16";
/// etcd's default limit on a request, in bytes.
const MOST_BYTES: usize = 3 << 19;
/// gRPC's, as etcd sets it.
const MOST_MESSAGE: usize = MOST_BYTES + (512 << 10);

/// The reply to a request.
pub(super) enum Answer {
    Whole {
        status: u16,
        content_type: &'static str,
        body: Vec<u8>,
    },
    /// Messages, as they come, until the period is over.
    Watch {
        watches: Watches,
        period: Option<Duration>,
    },
}

type Reply = Result<Vec<u8>, Refusal>;

/// Answers one request. `header` says which cluster this is.
pub(super) fn answer(request: &Request, store: &mut Store, header: Header, now: Instant) -> Answer {
    let mut call = Call {
        body: &request.body,
        store,
        header,
        now,
    };
    let period = match &request.timeout {
        Ok(period) => *period,
        Err(text) => {
            let why = format!("invalid grpc-timeout: {text}");
            return refused(&Refusal::unreadable(why));
        }
    };
    let route: fn(&mut Call) -> Reply = match &*request.path {
        "/version" | "/health" if !request.is_get => return text(405, "Method Not Allowed\n"),
        "/version" => {
            let version = format!(r#"{{"etcdserver":"{VERSION}","etcdcluster":"3.5.0"}}"#);
            return whole(200, version.into());
        }
        "/health" => return text(200, r#"{"health":"true","reason":""}"#),
        path if !path.starts_with("/v3/") => return text(404, "404 page not found\n"),
        "/v3/watch" if request.is_post => {
            let watches = call.watch();
            return Answer::Watch { watches, period };
        }
        // By another method: refused below.
        "/v3/watch" => |_| Ok(Vec::new()),
        "/v3/kv/range" => |call| call.range(),
        "/v3/kv/put" => |call| call.put(),
        "/v3/kv/deleterange" => |call| call.delete_range(),
        "/v3/kv/txn" => |call| call.txn(),
        "/v3/kv/compaction" => |call| call.compaction(),
        "/v3/lease/grant" => |call| call.grant(),
        "/v3/lease/keepalive" => |call| call.keepalive(),
        "/v3/lease/timetolive" | "/v3/kv/lease/timetolive" => |call| call.time_to_live(),
        "/v3/lease/revoke" | "/v3/kv/lease/revoke" => |call| call.revoke(),
        "/v3/lease/leases" | "/v3/kv/lease/leases" => |call| call.leases(),
        "/v3/maintenance/status" => |call| call.status(),
        "/v3/auth/authenticate" => |call| call.read::<Authenticate>().and(Err(Refusal::NO_AUTH)),
        _ => return refused(&Refusal::nowhere(NOT_FOUND, "Not Found")),
    };
    if !request.is_post {
        return refused(&Refusal::nowhere(UNIMPLEMENTED, "Method Not Allowed"));
    }
    if request.too_large {
        return refused(&Refusal::TOO_LARGE);
    }
    match route(&mut call) {
        Ok(body) => whole(200, body),
        Err(refusal) => refused(&refusal),
    }
}

fn text(status: u16, body: &str) -> Answer {
    Answer::Whole {
        status,
        content_type: "text/plain; charset=utf-8",
        body: body.into(),
    }
}

fn whole(status: u16, body: Vec<u8>) -> Answer {
    Answer::Whole {
        status,
        content_type: "application/json",
        body,
    }
}

fn refused(refusal: &Refusal) -> Answer {
    whole(refusal.status(), to_json(&ErrorOut::from(refusal)))
}

struct Call<'a> {
    body: &'a [u8],
    store: &'a mut Store,
    header: Header,
    now: Instant,
}

impl<'a> Call<'a> {
    /// The request's message; nothing at all is an empty one.
    fn read<T: for<'de> Deserialize<'de> + Default>(&self) -> Result<T, Refusal> {
        self.messages().next().unwrap_or_else(|| Ok(T::default()))
    }

    /// The messages of a request that may have several.
    fn messages<T>(&self) -> impl Iterator<Item = Result<T, Refusal>> + use<'a, T>
    where
        T: for<'de> Deserialize<'de>,
    {
        let objects = serde_json::Deserializer::from_slice(self.body).into_iter();
        objects.map(|object| match object {
            Ok(Object(message)) => Ok(message),
            Err(error) => Err(Refusal::unreadable(error)),
        })
    }

    /// As of now, so after what the request did.
    fn header(&self) -> Header {
        self.header.at(self.store.revision())
    }

    fn range(&mut self) -> Reply {
        let request: Range = self.read()?;
        let found = self.store.range(&request)?;
        Ok(to_json(&reply::range(
            self.header(),
            &found,
            request.keys_only,
        )))
    }

    fn put(&mut self) -> Reply {
        let request: Put = self.read()?;
        let bytes = request.message_bytes();
        if bytes > MOST_MESSAGE {
            return Err(Refusal::message_too_large(bytes, MOST_MESSAGE));
        }
        if bytes > MOST_BYTES {
            return Err(Refusal::TOO_LARGE);
        }
        let previous = self.store.put(&request)?;
        let prev_kv = previous.as_deref().filter(|_| request.prev_kv);
        Ok(to_json(&PutOut {
            header: self.header(),
            prev_kv: prev_kv.map(KvOut::from),
        }))
    }

    fn delete_range(&mut self) -> Reply {
        let request: DeleteRange = self.read()?;
        let kvs = self.store.delete_range(&request)?;
        Ok(to_json(&DeletedOut {
            header: self.header(),
            deleted: Text(kvs.len() as i64),
            prev_kvs: reply::previous(&kvs, request.prev_kv),
        }))
    }

    fn txn(&mut self) -> Reply {
        // About the bytes in it: they come as base64.
        if self.body.len() / 4 * 3 > MOST_BYTES {
            return Err(Refusal::TOO_LARGE);
        }
        let request: Txn = self.read()?;
        let outcome = self.store.txn(&request)?;
        Ok(to_json(&reply::txn(self.header(), &outcome)))
    }

    fn compaction(&mut self) -> Reply {
        let request: Compaction = self.read()?;
        self.store.compact(request.revision)?;
        Ok(to_json(&HeaderOut {
            header: self.header(),
        }))
    }

    fn grant(&mut self) -> Reply {
        let request: Grant = self.read()?;
        let id = match request.id {
            0 => self.store.leases.free_id(),
            id => id,
        };
        let ttl = self.store.leases.grant(id, request.ttl, self.now)?;
        Ok(to_json(&LeaseOut {
            header: self.header(),
            id: Text(id),
            ttl: Text(ttl),
            ..LeaseOut::default()
        }))
    }

    fn keepalive(&mut self) -> Reply {
        let mut lines = Vec::new();
        // What can't be read ends it, in good order.
        for LeaseId { id } in self.messages().map_while(Result::ok) {
            let ttl = self.store.leases.renew(id, self.now).unwrap_or(0);
            lines.extend(to_line(&LeaseOut {
                header: self.header(),
                id: Text(id),
                ttl: Text(ttl),
                ..LeaseOut::default()
            }));
        }
        Ok(lines)
    }

    fn time_to_live(&mut self) -> Reply {
        let TimeToLive { id, keys } = self.read()?;
        let mut out = LeaseOut {
            header: self.header(),
            id: Text(id),
            ttl: Text(-1),
            ..LeaseOut::default()
        };
        if let Some(lease) = self.store.leases.get(id) {
            out.ttl = Text(lease.remaining(self.now));
            out.granted = Text(lease.ttl);
            if keys {
                out.keys = lease.keys.iter().map(|key| Base64(key)).collect();
            }
        }
        Ok(to_json(&out))
    }

    fn revoke(&mut self) -> Reply {
        let request: LeaseId = self.read()?;
        self.store.revoke(request.id)?;
        Ok(to_json(&HeaderOut {
            header: self.header(),
        }))
    }

    fn leases(&mut self) -> Reply {
        let Empty {} = self.read()?;
        let ids = self.store.leases.ids();
        Ok(to_json(&LeasesOut {
            header: self.header(),
            leases: ids
                .into_iter()
                .map(|id| LeaseIdOut { id: Text(id) })
                .collect(),
        }))
    }

    fn status(&mut self) -> Reply {
        let Empty {} = self.read()?;
        Ok(to_json(&StatusOut {
            header: self.header(),
            version: VERSION,
            db_size: Text(self.store.live_bytes() as i64),
            leader: self.header.member_id,
            raft_index: Text(self.store.revision()),
            raft_term: self.header.raft_term,
        }))
    }

    fn watch(&mut self) -> Watches {
        let mut watches = Watches::new(self.header);
        // What can't be read ends the reading; what came before stands.
        for message in self.messages().map_while(Result::ok) {
            watches.ask(message, self.store, self.now);
        }
        watches
    }
}

/// A message, which must be a JSON object.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields<T>(std::marker::PhantomData<T>);
        impl<'de, T: Deserialize<'de>> serde::de::Visitor<'de> for Fields<T> {
            type Value = T;
            fn expecting(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map))
            }
        }
        deserializer
            .deserialize_map(Fields(std::marker::PhantomData))
            .map(Object)
    }
}
