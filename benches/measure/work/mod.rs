//! The workloads.

pub mod build;
pub mod ends;
pub mod fanout;
pub mod listing;
pub mod live;
pub mod replay;
pub mod server;
pub mod shutdown;

use serde_json::Value;

use crate::child::Who;
use crate::plot::Bar;
use crate::report::Samples;

/// A candidate's number in each round.
fn each(results: &[Value], number: impl Fn(&Value) -> f64) -> Vec<f64> {
    results.iter().map(number).collect()
}

fn float(value: &Value) -> f64 {
    value.as_f64().expect("a number")
}

fn samples(values: &[f64]) -> Samples {
    values.iter().copied().collect()
}

fn bar(who: Who, values: &[f64]) -> Bar {
    labelled(who.name().to_owned(), values, who == Who::Headcount)
}

fn labelled(label: String, values: &[f64], ours: bool) -> Bar {
    let samples = samples(values);
    let spread = (samples.at(0.0), samples.at(1.0));
    Bar {
        label,
        value: samples.median(),
        spread,
        ours,
    }
}
