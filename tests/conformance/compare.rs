use std::path::Path;

use serde_json::{Value, json};

use super::differences::EVERYWHERE;
use super::talk::Entry;

/// Asserts that two stores have said the same; shows the first difference where they haven't.
#[track_caller]
pub fn assert_same(scenario: &str, left: (&str, &[Entry]), right: (&str, &[Entry])) {
    let mut differences = Vec::new();
    for n in 0..left.1.len().max(right.1.len()) {
        let (a, b) = (left.1.get(n).map(masked), right.1.get(n).map(masked));
        if let (Some(a), Some(b)) = (&a, &b) {
            let same = a.request == b.request
                && a.status == b.status
                && a.content_type == b.content_type
                && a.reply == b.reply;
            if same {
                continue;
            }
        }
        let request = a
            .as_ref()
            .or(b.as_ref())
            .map(|entry| cut(&entry.request, 500));
        differences.push(format!(
            "step {n}: {}\n{}{}",
            request.unwrap_or_default(),
            show(left.0, a.as_ref()),
            show(right.0, b.as_ref()),
        ));
    }
    if let Some(first) = differences.first() {
        let all = std::env::var_os("HEADCOUNT_ALL_DIFFERENCES").is_some();
        let shown = if all {
            differences.join("\n")
        } else {
            first.clone()
        };
        panic!("{scenario}: {} steps differ\n{shown}", differences.len());
    }
}

fn masked(entry: &Entry) -> Entry {
    let mut entry = entry.clone();
    for allowed in EVERYWHERE.iter().chain(entry.allowed.clone()) {
        (allowed.mask)(&mut entry);
    }
    entry
}

fn show(name: &str, entry: Option<&Entry>) -> String {
    match entry {
        None => format!("  {name:<10} (the transcript is over)\n"),
        Some(entry) => format!(
            "  {name:<10} {} {} {}\n  {:<10} raw: {}\n",
            entry.status,
            entry.content_type,
            cut(&entry.reply.to_string(), 3000),
            "",
            cut(&entry.raw, 600),
        ),
    }
}

fn cut(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some((at, _)) => format!("{}… ({} bytes)", &text[..at], text.len()),
    }
}

/// Keeps a transcript for the eye: `HEADCOUNT_TRANSCRIPTS` names the folder.
pub fn keep(store: &str, scenario: &str, entries: &[Entry]) {
    let Some(folder) = std::env::var_os("HEADCOUNT_TRANSCRIPTS") else {
        return;
    };
    let folder = Path::new(&folder).join(store);
    let entries: Vec<Value> = entries
        .iter()
        .map(|entry| {
            json!({
                "request": cut(&entry.request, 2000),
                "status": entry.status,
                "content_type": entry.content_type,
                "raw": cut(&entry.raw, 4000),
            })
        })
        .collect();
    std::fs::create_dir_all(&folder).expect("the folder for transcripts");
    let text = serde_json::to_string_pretty(&entries).expect("JSON");
    std::fs::write(folder.join(format!("{scenario}.json")), text).expect("write a transcript");
}
