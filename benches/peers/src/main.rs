//! The jobs of the bench, as etcd-client does them over gRPC on tokio.

#[path = "../../measure/roles/shared.rs"]
mod shared;

use etcd_client::{Client, GetOptions, WatchOptions};
use serde_json::{Value, json};
use shared::{Args, Watched, cpu, done, memory, now, ready, stamp, wait_go};
use tokio::runtime::Builder;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [role, job, who, rest @ ..] = &args[..] else {
        panic!("usage: peers role JOB single|multi NAME=VALUE…");
    };
    assert_eq!(role, "role");
    let mut runtime = match who.as_str() {
        "single" => Builder::new_current_thread(),
        _ => Builder::new_multi_thread(),
    };
    let runtime = runtime.enable_all().build().expect("a runtime");
    let args = Args::new(rest);
    match job.as_str() {
        "watch" => runtime.block_on(watch(&args)),
        "list" => runtime.block_on(list(&args)),
        other => panic!("nobody does {other}"),
    }
}

async fn connect(args: &Args) -> Client {
    Client::connect([args.text("endpoint")], None)
        .await
        .expect("a connection")
}

async fn watch(args: &Args) {
    let client = connect(args).await;
    let timed = args.number("timed") != 0;
    let mut watcher = client.watch_client().max_decoding_message_size(usize::MAX);
    let options = WatchOptions::new()
        .with_range(args.text("to"))
        .with_start_revision(args.number("from"));
    let last = args.text("last").as_bytes();
    let mut watched = Watched::begin(timed);
    wait_go();
    let mut stream = watcher
        .watch(args.text("begin"), Some(options))
        .await
        .expect("a watch");
    loop {
        let message = stream.message().await.expect("a message");
        let message = message.expect("the stream goes on");
        for event in message.events() {
            let kv = event.kv().expect("a key and a value");
            std::hint::black_box(kv.mod_revision());
            watched.event(|| stamp(kv.value()));
            if kv.key() == last {
                return watched.end(Value::Null);
            }
        }
    }
}

async fn list(args: &Args) {
    ready();
    let (began, spent, before) = (now(), cpu(), memory("VmRSS:"));
    let client = connect(args).await;
    let mut kv = client.kv_client().max_decoding_message_size(usize::MAX);
    let options = GetOptions::new().with_range(args.text("to"));
    let reply = kv
        .get(args.text("begin"), Some(options))
        .await
        .expect("a listing");
    let (wall, cpu) = ((now() - began) as f64 * 1e-9, cpu() - spent);
    let peak = memory("VmHWM:") - before;
    shared::trim();
    done(json!({
        "wall": wall, "cpu": cpu, "members": reply.kvs().len(), "peak": peak,
        "held": memory("VmRSS:") - before,
    }));
}
