//! Draws what `bench/curves` measured: `bench-plot CURVES.TSV DIRECTORY` writes an SVG for each of its
//! figures.
//!
//! A line of the file is a point: figure, curve, x, y, separated by tabs.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{fs, io};

use clap::Parser;
use plotters::coord::Shift;
use plotters::prelude::{
    ChartBuilder, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, PathElement, RGBColor,
    SVGBackend, SeriesLabelPosition, WHITE,
};
use plotters::style::Color;

/// Draw the curves that bench/curves measured.
#[derive(Debug, Parser)]
#[command(name = "bench-plot", version)]
struct Args {
    /// What was measured: figure, curve, x and y, separated by tabs.
    #[arg(value_name = "FILE")]
    curves: PathBuf,

    /// Where the SVG files go.
    #[arg(value_name = "DIRECTORY")]
    out: PathBuf,
}

/// A figure that is known: its name in the file and of its SVG, and what its axes are. All scales are
/// logarithmic.
struct Figure {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
}

const FIGURES: [Figure; 3] = [
    Figure {
        name: "throughput",
        title: "Answers a second, 64 connections, 900 bytes",
        x: "in flight on each connection",
        y: "answers a second",
    },
    Figure {
        name: "latency",
        title: "Latency at 20 000 NOTIFYs a second, 64 connections, 900 bytes",
        x: "one answer in … is slower",
        y: "microseconds from when it was due",
    },
    Figure {
        name: "connections",
        title: "Processor time of an answer, one in flight on each connection, 900 bytes",
        x: "connections",
        y: "microseconds",
    },
];

/// Colours that stay apart for the colour-blind (Okabe and Ito).
const COLOURS: [RGBColor; 6] = [
    RGBColor(0, 0, 0),
    RGBColor(0, 114, 178),
    RGBColor(86, 180, 233),
    RGBColor(0, 158, 115),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
];

type Points = Vec<(f64, f64)>;

fn main() -> ExitCode {
    let Args { curves, out } = Args::parse();
    match draw_all(&curves, &out) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-plot: {error}");
            ExitCode::FAILURE
        }
    }
}

fn draw_all(curves: &Path, out: &Path) -> Result<(), Box<dyn Error>> {
    let text = fs::read_to_string(curves)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", curves.display())))?;
    for figure in FIGURES {
        let curves = curves_of(&text, figure.name)?;
        if !curves.is_empty() {
            let path = out.join(figure.name).with_extension("svg");
            draw(&figure, &curves, &path)?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// The curves of a figure, in the order of the file.
fn curves_of(text: &str, figure: &str) -> Result<Vec<(String, Points)>, String> {
    let mut places = BTreeMap::new();
    let mut curves: Vec<(String, Points)> = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let fault = || format!("line {number}: not a figure, a curve, x and y: {line:?}");
        let fields: Vec<&str> = line.split('\t').collect();
        let &[name, curve, x, y] = fields.as_slice() else { return Err(fault()) };
        if name != figure {
            continue;
        }
        let point = (x.parse().map_err(|_| fault())?, y.parse().map_err(|_| fault())?);
        let place = *places.entry(curve.to_owned()).or_insert(curves.len());
        match curves.get_mut(place) {
            Some((_, points)) => points.push(point),
            None => curves.push((curve.to_owned(), vec![point])),
        }
    }
    Ok(curves)
}

fn draw(figure: &Figure, curves: &[(String, Points)], path: &Path) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, (800, 500)).into_drawing_area();
    draw_on(&root, figure, curves)?;
    root.present()?;
    Ok(())
}

fn draw_on(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    figure: &Figure,
    curves: &[(String, Points)],
) -> Result<(), Box<dyn Error>> {
    root.fill(&WHITE)?;
    let points = || curves.iter().flat_map(|(_, points)| points);
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) =
            values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low * 0.9..high * 1.2).log_scale()
    };
    let mut chart = ChartBuilder::on(root)
        .caption(figure.title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(76)
        .build_cartesian_2d(
            range(&mut points().map(|&(x, _)| x)),
            range(&mut points().map(|&(_, y)| y)),
        )?;
    chart.configure_mesh().x_desc(figure.x).y_desc(figure.y).draw()?;
    for ((name, points), colour) in curves.iter().zip(COLOURS.iter().cycle()) {
        let style = colour.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(COLOURS.first().unwrap_or(&WHITE))
        .draw()?;
    Ok(())
}
