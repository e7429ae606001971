//! What was measured, as a table and a plot for each workload.

use std::fs;
use std::path::Path;

use crate::plot::{self, Bar};

/// Repeated measurements of one thing, sorted.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Samples {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Samples(values)
    }
}

impl Samples {
    /// The value below which this share lies.
    pub fn at(&self, share: f64) -> f64 {
        let last = self.0.len().saturating_sub(1);
        let at = (last as f64 * share).round() as usize;
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    pub fn median(&self) -> f64 {
        self.at(0.5)
    }

    /// Median, and from where to where.
    pub fn spread(&self, digits: usize) -> String {
        let [low, mid, high] = [0.0, 0.5, 1.0].map(|share| self.at(share));
        match self.0.len() {
            1 => format!("{mid:.digits$}"),
            _ => format!("{mid:.digits$} ({low:.digits$}–{high:.digits$})"),
        }
    }
}

/// Ratios of what was measured in the same round.
pub fn ratios(ours: &[f64], theirs: &[f64]) -> Samples {
    ours.iter().zip(theirs).map(|(o, t)| o / t).collect()
}

/// A target and how it came out.
pub struct Target {
    pub letter: char,
    pub target: String,
    pub measured: String,
    pub met: bool,
}

/// One workload's part of the report.
pub struct Section {
    /// The name of its files.
    pub name: &'static str,
    pub title: &'static str,
    /// What was done, in a few words.
    pub about: String,
    pub head: Vec<&'static str>,
    pub rows: Vec<Vec<String>>,
    pub targets: Vec<Target>,
    /// What the plot shows, and its unit.
    pub plot: (String, &'static str),
    pub bars: Vec<Bar>,
}

impl Section {
    pub fn new(name: &'static str, title: &'static str, about: String) -> Section {
        Section {
            name,
            title,
            about,
            head: Vec::new(),
            rows: Vec::new(),
            targets: Vec::new(),
            plot: Default::default(),
            bars: Vec::new(),
        }
    }

    pub fn target(&mut self, letter: char, target: &str, measured: String, met: bool) {
        let target = target.to_owned();
        self.targets.push(Target {
            letter,
            target,
            measured,
            met,
        });
    }

    fn text(&self) -> String {
        let mut text = format!("## {}\n\n{}\n\n", self.title, self.about);
        text += &row(self.head.iter().map(|h| (*h).to_owned()));
        text += &row(self.head.iter().map(|_| "---".to_owned()));
        for cells in &self.rows {
            text += &row(cells.iter().cloned());
        }
        text
    }
}

fn row(cells: impl Iterator<Item = String>) -> String {
    format!("| {} |\n", cells.collect::<Vec<_>>().join(" | "))
}

pub struct Report {
    head: Vec<String>,
    sections: Vec<Section>,
}

impl Report {
    pub fn new(head: Vec<String>) -> Report {
        Report {
            head,
            sections: Vec::new(),
        }
    }

    pub fn add(&mut self, section: Section) {
        eprintln!("\n{}", section.text());
        self.sections.push(section);
    }

    pub fn text(&self) -> String {
        let mut text = format!("# Measured\n\n{}\n\n## Targets\n\n", self.head.join("  \n"));
        text += "Medians of rounds in which the candidates took turns; in brackets the lowest and \
                 the highest round, as a line in the plots. Ratios are of the same round.\n\n";
        text += "| | target | measured | |\n| --- | --- | --- | --- |\n";
        for target in self.sections.iter().flat_map(|s| &s.targets) {
            let met = if target.met { "met" } else { "**missed**" };
            let Target {
                letter,
                target,
                measured,
                ..
            } = target;
            text += &format!("| {letter} | {target} | {measured} | {met} |\n");
        }
        for section in &self.sections {
            text += &format!("\n{}", section.text());
            if !section.bars.is_empty() {
                text += &format!("\n![{}]({}.svg)\n", section.plot.0, section.name);
            }
        }
        text
    }

    /// The text, and a plot for each section.
    pub fn write(&self, folder: &Path) {
        fs::create_dir_all(folder).expect("a folder for the results");
        for section in self.sections.iter().filter(|s| !s.bars.is_empty()) {
            let file = folder.join(format!("{}.svg", section.name));
            plot::bars(&file, &section.plot.0, section.plot.1, &section.bars);
        }
        fs::write(folder.join("README.md"), self.text()).expect("the table's file");
    }
}
