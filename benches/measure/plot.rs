//! Horizontal bars, one for each candidate.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub struct Bar {
    pub label: String,
    pub value: f64,
    /// From where to where the rounds went.
    pub spread: (f64, f64),
    /// Headcount's own.
    pub ours: bool,
}

const WIDTH: i32 = 820;
const LEFT: i32 = 250;
const ROW: i32 = 30;

pub fn bars(file: &Path, title: &str, unit: &str, bars: &[Bar]) {
    draw(file, title, unit, bars).expect("the plot's file");
}

fn draw(file: &Path, title: &str, unit: &str, bars: &[Bar]) -> Result<(), Box<dyn Error>> {
    let height = 60 + ROW * bars.len() as i32;
    let file = file.to_string_lossy().into_owned();
    let area = SVGBackend::new(&file, (WIDTH as u32, height as u32)).into_drawing_area();
    area.fill(&WHITE).map_err(|e| e.to_string())?;
    let black = RGBColor(40, 40, 40);
    let put = |words: String, size: i32, side: HPos, at: (i32, i32)| {
        let style = TextStyle::from(("sans-serif", size).into_font());
        let style = style.color(&black).pos(Pos::new(side, VPos::Center));
        area.draw(&Text::new(words, at, style))
            .map_err(|e| e.to_string())
    };
    put(format!("{title}, {unit}"), 21, HPos::Left, (14, 22))?;
    let most = bars.iter().map(|b| b.value.max(b.spread.1));
    let most = most.fold(f64::MIN_POSITIVE, f64::max);
    let room = f64::from(WIDTH - LEFT - 110);
    let x = |value: f64| LEFT + (value / most * room).round() as i32;
    for (n, bar) in bars.iter().enumerate() {
        let y = 48 + ROW * n as i32;
        let middle = y + ROW / 2 - 3;
        let color = match bar.ours {
            true => RGBColor(90, 165, 195),
            false => RGBColor(190, 200, 205),
        };
        put(bar.label.clone(), 17, HPos::Right, (LEFT - 10, middle))?;
        let shape = [(LEFT, y), (x(bar.value), y + ROW - 8)];
        area.draw(&Rectangle::new(shape, color.filled()))
            .map_err(|e| e.to_string())?;
        let [low, high] = [x(bar.spread.0), x(bar.spread.1)];
        if low < high {
            let (top, bottom) = (middle - 4, middle + 4);
            for ends in [
                [(low, middle), (high, middle)],
                [(low, top), (low, bottom)],
                [(high, top), (high, bottom)],
            ] {
                area.draw(&PathElement::new(ends, black))
                    .map_err(|e| e.to_string())?;
            }
        }
        let digits = match bar.value {
            v if v >= 100.0 => 0,
            v if v >= 10.0 => 1,
            _ => 2,
        };
        let at = (x(bar.value.max(bar.spread.1)) + 8, middle);
        put(format!("{:.digits$}", bar.value), 17, HPos::Left, at)?;
    }
    area.present().map_err(|e| e.to_string())?;
    Ok(())
}
