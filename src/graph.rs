//! Owns pictures of a plan: Mermaid, DOT and an own SVG.
//!
//! All three are functions of the plan alone, so that the same plan gives the same bytes
//! (`pictures_do_not_depend_on_the_order_in_the_file`).
//!
//! The SVG is a layered drawing after Sugiyama, Tagawa and Toda (1981): nodes in rows by their longest path from a
//! source, rows ordered by barycentres to cross few edges, columns placed by least squares. All edges from one output
//! share one line as far as they can, so that an output that everybody reads stays one line and not a fan.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::plan::{Plan, PlanNode};

/// For Markdown: a Mermaid flowchart. Stages that run per record have doubled sides; thick arrows gather all records.
#[must_use]
pub fn mermaid(plan: &Plan) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for (idx, node) in plan.nodes().iter().enumerate() {
        let (open, close) = if node.per_record { ("[[", "]]") } else { ("[", "]") };
        let label =
            if node.name == node.uses { node.name.clone() } else { format!("{}<br/><i>{}</i>", node.name, node.uses) };
        line(&mut text, format_args!("  n{idx}{open}\"{label}\"{close}"));
    }
    for (idx, node) in plan.nodes().iter().enumerate() {
        for edge in node.inputs.values() {
            let arrow = if edge.gather { "==>" } else { "-->" };
            line(&mut text, format_args!("  n{} {arrow}|{}| n{idx}", edge.node_idx, edge.kind.name));
        }
    }
    for (idx, one) in plan.publish().iter().enumerate() {
        let target = escaped(&shown_target(&one.target, one.folder));
        line(&mut text, format_args!("  n{} -.-> p{idx}(\"{target}\")", one.node_idx));
    }
    text
}

/// For Graphviz. Stages that run per record have a double border; bold edges gather all records.
#[must_use]
pub fn dot(plan: &Plan) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    let mut text = format!("digraph {} {{\n", quoted(plan.name()));
    text.push_str(
        "  node [shape=box, style=rounded, fontname=\"Helvetica\"];\n  edge [fontname=\"Helvetica\", fontsize=10];\n",
    );
    for node in plan.nodes() {
        let peripheries = if node.per_record { ", peripheries=2" } else { "" };
        let label = if node.name == node.uses { node.name.clone() } else { format!("{}\n{}", node.name, node.uses) };
        let label = quoted(&label).replace('\n', "\\n");
        line(&mut text, format_args!("  {} [label={label}{peripheries}];", quoted(&node.name)));
    }
    for node in plan.nodes() {
        for (port, edge) in &node.inputs {
            let from = &plan.nodes()[edge.node_idx].name;
            let bold = if edge.gather { ", style=bold" } else { "" };
            let tip = format!("{from}.{} to {}.{port}", edge.port, node.name);
            line(
                &mut text,
                format_args!(
                    "  {} -> {} [label={}{bold}, tooltip={}];",
                    quoted(from),
                    quoted(&node.name),
                    quoted(edge.kind.name),
                    quoted(&tip)
                ),
            );
        }
    }
    for one in plan.publish() {
        let target = quoted(&shown_target(&one.target, one.folder));
        line(&mut text, format_args!("  {target} [shape=note, style=solid, fontsize=10];"));
        line(&mut text, format_args!("  {} -> {target} [style=dashed];", quoted(&plan.nodes()[one.node_idx].name)));
    }
    text.push_str("}\n");
    text
}

/// A picture that needs no program to draw it.
#[must_use]
pub fn svg(plan: &Plan) -> String {
    Drawing::of(plan).svg(plan)
}

fn line(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments).expect("writing to a string cannot fail");
    text.push('\n');
}

fn shown_target(target: &str, folder: bool) -> String {
    if folder { format!("{target}/") } else { target.to_owned() }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Heights and gaps, in pixels.
const PORT_HEIGHT: f64 = 18.0;
const BOX_GAP: f64 = 34.0;
const LINE_GAP: f64 = 16.0;
const ROW_GAP: f64 = 54.0;
const MARGIN: f64 = 24.0;
/// How far the second and third sheet of a per-record node stand out.
const SHEET: f64 = 4.0;
/// Sweeps of ordering; every plan tried had settled after a third of them.
const ORDER_SWEEP_N: usize = 24;
/// Sweeps of placing: long lines straighten slowly, a row a sweep.
const PLACE_SWEEP_N: usize = 200;

/// Something that has a place in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Item {
    /// A node by its place in the plan.
    Node(usize),
    /// Where the line of an output passes a row.
    Pass(usize),
}

/// An output that somebody reads: node, port and who reads it.
struct Line {
    node_idx: usize,
    port: String,
    readers: BTreeSet<usize>,
}

struct Drawing {
    rows: Vec<Vec<Item>>,
    lines: Vec<Line>,
    /// The row of each node.
    row_of: Vec<usize>,
    /// The centre of each item.
    x: BTreeMap<(usize, Item), f64>,
    /// Top and height of each row.
    y: Vec<(f64, f64)>,
    width: f64,
}

/// A little more than the average of a proportional typeface, so that text never leaves its box.
fn text_width(text: &str, size: f64) -> f64 {
    text.chars().count() as f64 * size * 0.58
}

/// The text on an output port: its kind is added where the name does not say it.
fn port_label(port: &ecgpipe_sdk::PortSpec) -> String {
    if port.name == port.kind.name { port.name.to_owned() } else { format!("{}: {}", port.name, port.kind.name) }
}

fn port_width(port: &ecgpipe_sdk::PortSpec) -> f64 {
    text_width(&port_label(port), 10.5) + 16.0
}

fn targets(plan: &Plan, node_idx: usize) -> Vec<String> {
    let mine = plan.publish().iter().filter(|one| one.node_idx == node_idx);
    let targets: BTreeSet<String> = mine.map(|one| shown_target(&one.target, one.folder)).collect();
    targets.into_iter().collect()
}

fn title_height(plan: &Plan, node_idx: usize) -> f64 {
    let node = &plan.nodes()[node_idx];
    let uses = if node.name == node.uses { 0.0 } else { 14.0 };
    26.0 + uses + 13.0 * targets(plan, node_idx).len() as f64 + 6.0
}

fn node_height(plan: &Plan, node_idx: usize) -> f64 {
    title_height(plan, node_idx) + PORT_HEIGHT
}

fn node_width(plan: &Plan, node_idx: usize) -> f64 {
    let node = &plan.nodes()[node_idx];
    let ports: f64 = node.outputs.iter().map(port_width).sum();
    let published = targets(plan, node_idx).iter().map(|target| text_width(target, 10.0) + 14.0).fold(0.0, f64::max);
    let texts = text_width(&node.name, 14.0).max(text_width(&node.uses, 11.0)).max(published) + 24.0;
    ports.max(texts).max(110.0)
}

impl Drawing {
    fn of(plan: &Plan) -> Self {
        let nodes = plan.nodes();
        let mut row_of = vec![0; nodes.len()];
        for (idx, node) in nodes.iter().enumerate() {
            row_of[idx] = node.inputs.values().map(|edge| row_of[edge.node_idx] + 1).max().unwrap_or(0);
        }
        let mut readers: BTreeMap<(usize, usize), BTreeSet<usize>> = BTreeMap::new();
        for (idx, node) in nodes.iter().enumerate() {
            for edge in node.inputs.values() {
                let ports = &nodes[edge.node_idx].outputs;
                let place =
                    ports.iter().position(|port| port.name == edge.port).expect("a plan's edges name real ports");
                readers.entry((edge.node_idx, place)).or_default().insert(idx);
            }
        }
        let lines: Vec<Line> = readers
            .into_iter()
            .map(|((node_idx, place), readers)| Line {
                node_idx,
                port: nodes[node_idx].outputs[place].name.to_owned(),
                readers,
            })
            .collect();
        let row_n = row_of.iter().max().map_or(0, |last| last + 1);
        let mut rows = vec![Vec::new(); row_n];
        for (idx, row) in row_of.iter().enumerate() {
            rows[*row].push(Item::Node(idx));
        }
        for (idx, line) in lines.iter().enumerate() {
            let last = line.readers.iter().map(|reader| row_of[*reader]).max().unwrap_or(0);
            for row in &mut rows[row_of[line.node_idx] + 1..last.max(row_of[line.node_idx] + 1)] {
                row.push(Item::Pass(idx));
            }
        }
        let mut drawing = Self { rows, lines, row_of, x: BTreeMap::new(), y: Vec::new(), width: 0.0 };
        drawing.order(plan);
        drawing.place(plan);
        drawing
    }

    /// What an item is joined with in the row above, or below.
    fn joined(&self, row: usize, item: Item, above: bool) -> Vec<Item> {
        let before = |line: usize, at: usize| {
            if at == self.row_of[self.lines[line].node_idx] + 1 {
                Item::Node(self.lines[line].node_idx)
            } else {
                Item::Pass(line)
            }
        };
        match (item, above) {
            (Item::Pass(line), true) => vec![before(line, row)],
            (Item::Node(idx), true) => {
                let read = self.lines.iter().enumerate().filter(|(_, line)| line.readers.contains(&idx));
                read.map(|(line, _)| before(line, row)).collect()
            }
            (Item::Pass(line), false) => self.after(row, line),
            (Item::Node(idx), false) => {
                let own = self.lines.iter().enumerate().filter(|(_, line)| line.node_idx == idx);
                own.flat_map(|(line, _)| self.after(row, line)).collect()
            }
        }
    }

    /// Where a line goes from a row to the next.
    fn after(&self, row: usize, line: usize) -> Vec<Item> {
        let Some(next) = self.rows.get(row + 1) else { return Vec::new() };
        let is_reader = |item: &&Item| match item {
            Item::Node(idx) => self.lines[line].readers.contains(idx),
            Item::Pass(other) => *other == line,
        };
        next.iter().filter(is_reader).copied().collect()
    }

    fn crossing_n(&self) -> usize {
        let mut crossing_n = 0;
        for row in 1..self.rows.len() {
            let above: BTreeMap<Item, usize> =
                self.rows[row - 1].iter().enumerate().map(|(place, item)| (*item, place)).collect();
            let ends = self.rows[row]
                .iter()
                .enumerate()
                .flat_map(|(place, item)| self.joined(row, *item, true).into_iter().map(move |from| (from, place)));
            let ends: Vec<(usize, usize)> = ends.map(|(from, to)| (above[&from], to)).collect();
            for (at, a) in ends.iter().enumerate() {
                crossing_n +=
                    ends[at + 1..].iter().filter(|b| (a.0 < b.0 && a.1 > b.1) || (a.0 > b.0 && a.1 < b.1)).count();
            }
        }
        crossing_n
    }

    /// Barycentre sweeps down and up; the best order seen is kept.
    fn order(&mut self, plan: &Plan) {
        let mut best = (self.crossing_n(), self.rows.clone());
        for sweep in 0..ORDER_SWEEP_N {
            let down = sweep % 2 == 0;
            let order: Vec<usize> = if down {
                (1..self.rows.len()).collect()
            } else {
                (0..self.rows.len().saturating_sub(1)).rev().collect()
            };
            for row in order {
                let other = if down { row - 1 } else { row + 1 };
                let place: BTreeMap<Item, usize> =
                    self.rows[other].iter().enumerate().map(|(place, item)| (*item, place)).collect();
                let mut keyed: Vec<(f64, usize, Item)> = self.rows[row]
                    .iter()
                    .enumerate()
                    .map(|(at, item)| {
                        let joined = self.joined(row, *item, down);
                        let sum: f64 =
                            joined.iter().map(|item| place[item] as f64 + self.port_shift(plan, *item)).sum();
                        let key = if joined.is_empty() { at as f64 } else { sum / joined.len() as f64 };
                        (key, at, *item)
                    })
                    .collect();
                keyed.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
                self.rows[row] = keyed.into_iter().map(|(_, _, item)| item).collect();
            }
            let crossing_n = self.crossing_n();
            if crossing_n < best.0 {
                best = (crossing_n, self.rows.clone());
            }
        }
        self.rows = best.1;
    }

    /// Of two outputs of one node, the left one's line should go left: a hint too small to move anything else.
    fn port_shift(&self, plan: &Plan, item: Item) -> f64 {
        match item {
            Item::Node(_) => 0.0,
            Item::Pass(line) => {
                let line = &self.lines[line];
                let outputs = &plan.nodes()[line.node_idx].outputs;
                let place = outputs.iter().position(|port| port.name == line.port).unwrap_or(0);
                0.01 * place as f64
            }
        }
    }

    /// Half of the room that an item takes.
    fn half(&self, plan: &Plan, item: Item) -> f64 {
        match item {
            Item::Node(idx) => node_width(plan, idx) / 2.0,
            Item::Pass(_) => 1.0,
        }
    }

    /// Where the line of an output leaves an item.
    fn exit_x(&self, plan: &Plan, row: usize, item: Item, line: usize) -> f64 {
        let centre = self.x[&(row, item)];
        let Item::Node(idx) = item else { return centre };
        let outputs = &plan.nodes()[idx].outputs;
        let width = node_width(plan, idx);
        let ports: f64 = outputs.iter().map(port_width).sum();
        let stretch = width / ports;
        let mut left = centre - width / 2.0;
        for port in outputs {
            if port.name == self.lines[line].port {
                return left + port_width(port) * stretch / 2.0;
            }
            left += port_width(port) * stretch;
        }
        centre
    }

    fn place(&mut self, plan: &Plan) {
        for row in 0..self.rows.len() {
            let desired = vec![0.0; self.rows[row].len()];
            self.settle(plan, row, &desired, &vec![1.0; desired.len()]);
        }
        for sweep in 0..PLACE_SWEEP_N {
            let rows: Vec<usize> =
                if sweep % 2 == 0 { (0..self.rows.len()).collect() } else { (0..self.rows.len()).rev().collect() };
            for row in rows {
                let mut desired = Vec::new();
                let mut weights = Vec::new();
                for item in self.rows[row].clone() {
                    let mut sum = 0.0;
                    let mut weight = 0.0;
                    let mut pull = |x: f64, strength: f64| {
                        sum += x * strength;
                        weight += strength;
                    };
                    for (line, _) in self.lines.iter().enumerate() {
                        // Long lines should run straight; of the rest, what comes from above counts as what goes below.
                        let straight = |other: Item| match (item, other) {
                            (Item::Pass(_), Item::Pass(_)) => 20.0,
                            (Item::Pass(_), Item::Node(_)) | (Item::Node(_), Item::Pass(_)) => 2.0,
                            (Item::Node(_), Item::Node(_)) => 1.0,
                        };
                        if row > 0 && self.ends_here(row, item, line) {
                            let from = self.before(row, line);
                            pull(self.exit_x(plan, row - 1, from, line), straight(from));
                        }
                        if self.starts_here(item, line) {
                            let shift = self.exit_x(plan, row, item, line) - self.x[&(row, item)];
                            for to in self.after(row, line) {
                                pull(self.x[&(row + 1, to)] - shift, straight(to));
                            }
                        }
                    }
                    let now = self.x[&(row, item)];
                    desired.push(if weight > 0.0 { sum / weight } else { now });
                    weights.push(weight.max(0.1));
                }
                self.settle(plan, row, &desired, &weights);
            }
        }
        let left = self.rows.iter().enumerate().flat_map(|(row, items)| items.iter().map(move |item| (row, *item)));
        let left: f64 =
            left.map(|(row, item)| self.x[&(row, item)] - self.half(plan, item)).fold(f64::INFINITY, f64::min);
        let left = if left.is_finite() { left } else { 0.0 };
        self.x.values_mut().for_each(|x| *x = (*x - left + MARGIN).round());
        let right = self.x.iter().map(|((_, item), x)| x + self.half(plan, *item)).fold(0.0, f64::max);
        self.width = (right + MARGIN + 2.0 * SHEET).ceil();
        let mut top = MARGIN;
        for items in &self.rows {
            let heights = items.iter().map(|item| match item {
                Item::Node(idx) => node_height(plan, *idx),
                Item::Pass(_) => 0.0,
            });
            let height = heights.fold(0.0, f64::max);
            self.y.push((top, height));
            top += height + ROW_GAP;
        }
    }

    fn before(&self, row: usize, line: usize) -> Item {
        let node_idx = self.lines[line].node_idx;
        if row == self.row_of[node_idx] + 1 { Item::Node(node_idx) } else { Item::Pass(line) }
    }

    fn ends_here(&self, row: usize, item: Item, line: usize) -> bool {
        match item {
            Item::Pass(own) => own == line && row > 0,
            Item::Node(idx) => self.lines[line].readers.contains(&idx),
        }
    }

    fn starts_here(&self, item: Item, line: usize) -> bool {
        match item {
            Item::Pass(own) => own == line,
            Item::Node(idx) => self.lines[line].node_idx == idx,
        }
    }

    /// The places nearest to the desired ones (weighted least squares) that keep order and gaps: isotonic regression
    /// by pooling adjacent violators.
    fn settle(&mut self, plan: &Plan, row: usize, desired: &[f64], weights: &[f64]) {
        let items = self.rows[row].clone();
        let mut offset = 0.0;
        let mut offsets = Vec::with_capacity(items.len());
        for (at, item) in items.iter().enumerate() {
            if at > 0 {
                let gap = match (items[at - 1], item) {
                    (Item::Node(_), Item::Node(_)) => BOX_GAP,
                    _ => LINE_GAP,
                };
                offset += self.half(plan, items[at - 1]) + gap + self.half(plan, *item);
            }
            offsets.push(offset);
        }
        let mut pools: Vec<(f64, f64, usize)> = Vec::new();
        for at in 0..items.len() {
            let mut pool = (desired[at] - offsets[at], weights[at], 1);
            while let Some(last) = pools.last().filter(|last| last.0 > pool.0) {
                let weight = last.1 + pool.1;
                pool = ((last.0 * last.1 + pool.0 * pool.1) / weight, weight, last.2 + pool.2);
                pools.pop();
            }
            pools.push(pool);
        }
        let values = pools.into_iter().flat_map(|(value, _, item_n)| std::iter::repeat_n(value, item_n));
        for ((item, value), offset) in items.into_iter().zip(values).zip(offsets) {
            self.x.insert((row, item), value + offset);
        }
    }

    fn svg(&self, plan: &Plan) -> String {
        let height = self.y.last().map_or(0.0, |(top, height)| top + height) + MARGIN + 30.0;
        let width = self.width.max(360.0);
        let mut text = String::new();
        line(
            &mut text,
            format_args!(
                "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
                 font-family=\"Helvetica, Arial, sans-serif\">"
            ),
        );
        line(&mut text, format_args!("<title>{}</title>", escaped(plan.name())));
        text.push_str(
            "<defs><marker id=\"tip\" viewBox=\"0 0 8 8\" refX=\"7\" refY=\"4\" markerWidth=\"9\" markerHeight=\"9\" \
             markerUnits=\"userSpaceOnUse\" orient=\"auto\"><path d=\"M0,0.5 L7.5,4 L0,7.5 z\" fill=\"#5b6b7d\"/></marker></defs>\n",
        );
        line(&mut text, format_args!("<rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>"));
        for row in 0..self.rows.len() {
            for item in &self.rows[row] {
                self.draw_lines(plan, row, *item, &mut text);
            }
        }
        for (row, items) in self.rows.iter().enumerate() {
            for item in items {
                if let Item::Node(idx) = item {
                    self.draw_node(plan, row, *idx, &mut text);
                }
            }
        }
        line(
            &mut text,
            format_args!(
                "<g font-size=\"10\" fill=\"#5b6b7d\" transform=\"translate({MARGIN} {:.0})\">\
                 <rect x=\"4\" y=\"-12\" width=\"20\" height=\"10\" fill=\"#fff\" stroke=\"#7a93ad\"/>\
                 <rect x=\"0\" y=\"-9\" width=\"20\" height=\"10\" fill=\"#eef4fa\" stroke=\"#7a93ad\"/>\
                 <text x=\"32\" y=\"0\">once per record</text>\
                 <path d=\"M130,-4 h24\" stroke=\"#5b6b7d\" stroke-width=\"1.3\"/><text x=\"160\" y=\"0\">one artifact</text>\
                 <path d=\"M240,-4 h24\" stroke=\"#5b6b7d\" stroke-width=\"2.8\"/><text x=\"270\" y=\"0\">all records</text></g>",
                height - 14.0
            ),
        );
        text.push_str("</svg>\n");
        text
    }

    /// The readers of a line that take all records of it at once.
    fn gathers(&self, plan: &Plan, line: usize, reader: usize) -> bool {
        let line = &self.lines[line];
        let mut edges = plan.nodes()[reader].inputs.values();
        edges.any(|edge| edge.gather && edge.node_idx == line.node_idx && edge.port == line.port)
    }

    /// Where lines enter a node, in the order in which they come so that they do not cross just above it.
    fn entry_x(&self, plan: &Plan, row: usize, idx: usize, line: usize) -> f64 {
        let mut coming: Vec<(f64, usize)> = (0..self.lines.len())
            .filter(|other| self.lines[*other].readers.contains(&idx))
            .map(|other| (self.exit_x(plan, row - 1, self.before(row, other), other), other))
            .collect();
        coming.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
        let place = coming.iter().position(|(_, other)| *other == line).unwrap_or(0);
        let step = (node_width(plan, idx) * 0.8 / coming.len() as f64).min(36.0);
        self.x[&(row, Item::Node(idx))] + (place as f64 - (coming.len() - 1) as f64 / 2.0) * step
    }

    fn draw_lines(&self, plan: &Plan, row: usize, item: Item, text: &mut String) {
        let own = (0..self.lines.len()).filter(|line| self.starts_here(item, *line));
        for line_idx in own {
            let (top, row_height) = self.y[row];
            let x = self.exit_x(plan, row, item, line_idx);
            let y = match item {
                Item::Node(idx) => top + node_height(plan, idx),
                Item::Pass(_) => top,
            };
            let row_end = top + row_height;
            let source = &plan.nodes()[self.lines[line_idx].node_idx];
            let from = escaped(&source.name);
            let kind = source.output(&self.lines[line_idx].port).map_or("", |port| port.kind.name);
            let port = &self.lines[line_idx].port;
            let title = format!("<title>{from}.{port}: {kind}</title>");
            if row_end > y {
                line(
                    text,
                    format_args!(
                        "<path d=\"M{x:.1},{y:.1} V{row_end:.1}\" fill=\"none\" stroke=\"#5b6b7d\" stroke-width=\"1.3\">{title}</path>"
                    ),
                );
            }
            for to in self.after(row, line_idx) {
                let (next_top, _) = self.y[row + 1];
                let (to_x, end, gathers, tip) = match to {
                    Item::Node(idx) => {
                        // Arrows end above the sheets of a node that runs per record.
                        let sheets = if plan.nodes()[idx].per_record { 2.0 * SHEET } else { 0.0 };
                        let to_x = self.entry_x(plan, row + 1, idx, line_idx);
                        let gathers = self.gathers(plan, line_idx, idx);
                        (to_x, next_top - sheets - 1.0, gathers, " marker-end=\"url(#tip)\"")
                    }
                    Item::Pass(_) => (self.x[&(row + 1, to)], next_top, false, ""),
                };
                let thickness = if gathers { "2.8" } else { "1.3" };
                let middle = (row_end + end) / 2.0;
                line(
                    text,
                    format_args!(
                        "<path d=\"M{x:.1},{row_end:.1} C{x:.1},{middle:.1} {to_x:.1},{middle:.1} {to_x:.1},{end:.1}\" \
                         fill=\"none\" stroke=\"#5b6b7d\" stroke-width=\"{thickness}\"{tip}>{title}</path>"
                    ),
                );
            }
        }
    }

    fn draw_node(&self, plan: &Plan, row: usize, idx: usize, text: &mut String) {
        let node = &plan.nodes()[idx];
        let (top, _) = self.y[row];
        let centre = self.x[&(row, Item::Node(idx))];
        let (width, height) = (node_width(plan, idx), node_height(plan, idx));
        let left = centre - width / 2.0;
        let (fill, border) = colours(node);
        line(text, format_args!("<g><title>{}</title>", escaped(&format!("{} uses {}", node.name, node.uses))));
        let sheets: &[f64] = if node.per_record { &[2.0, 1.0, 0.0] } else { &[0.0] };
        for sheet in sheets {
            let (x, y) = (left + sheet * SHEET, top - sheet * SHEET);
            line(
                text,
                format_args!(
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" rx=\"5\" fill=\"{fill}\" stroke=\"{border}\"/>"
                ),
            );
        }
        let mut baseline = top + 20.0;
        let name = escaped(&node.name);
        line(
            text,
            format_args!(
                "<text x=\"{centre:.1}\" y=\"{baseline:.1}\" font-size=\"14\" font-weight=\"bold\" text-anchor=\"middle\" fill=\"#1d2b3a\">{name}</text>"
            ),
        );
        if node.name != node.uses {
            baseline += 15.0;
            let uses = escaped(&node.uses);
            line(
                text,
                format_args!(
                    "<text x=\"{centre:.1}\" y=\"{baseline:.1}\" font-size=\"11\" text-anchor=\"middle\" fill=\"#5b6b7d\">{uses}</text>"
                ),
            );
        }
        for target in targets(plan, idx) {
            baseline += 13.0;
            let target = escaped(&target);
            line(
                text,
                format_args!(
                    "<text x=\"{centre:.1}\" y=\"{baseline:.1}\" font-size=\"10\" font-style=\"italic\" text-anchor=\"middle\" fill=\"#2f7d4f\">\u{2192} {target}</text>"
                ),
            );
        }
        let ports_top = top + title_height(plan, idx);
        let stretch = width / node.outputs.iter().map(port_width).sum::<f64>().max(1.0);
        let mut x = left;
        for port in &node.outputs {
            let port_width = port_width(port) * stretch;
            let is_read = self.lines.iter().any(|line| line.node_idx == idx && line.port == port.name);
            let colour = if is_read { "#1d2b3a" } else { "#8a97a5" };
            if x > left {
                let end = top + height;
                line(
                    text,
                    format_args!(
                        "<path d=\"M{x:.1},{ports_top:.1} V{end:.1}\" stroke=\"{border}\" stroke-width=\"0.7\"/>"
                    ),
                );
            }
            line(
                text,
                format_args!(
                    "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10.5\" text-anchor=\"middle\" fill=\"{colour}\">{}</text>",
                    x + port_width / 2.0,
                    ports_top + 12.5,
                    escaped(&port_label(port))
                ),
            );
            x += port_width;
        }
        if !node.outputs.is_empty() {
            line(
                text,
                format_args!(
                    "<path d=\"M{left:.1},{ports_top:.1} h{width:.1}\" stroke=\"{border}\" stroke-width=\"0.7\"/>"
                ),
            );
        }
        text.push_str("</g>\n");
    }
}

/// Fill and border: sources, stages per record, stages that draw random numbers, and the rest.
fn colours(node: &PlanNode) -> (&'static str, &'static str) {
    if node.source {
        ("#e9f6ec", "#6fa884")
    } else if node.seeded {
        ("#fdf1e3", "#cf9a5b")
    } else if node.per_record {
        ("#eef4fa", "#7a93ad")
    } else {
        ("#f6f6f8", "#8f95a3")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;
    use crate::{
        pipeline::load_with,
        plan::{plan, test_stages::registry},
    };

    const YAML: &str = "
name: small
stages:
  ingest: {uses: ingest}
  clean: {uses: smooth, in: {signals: ingest.signals}}
  peaks: {uses: detect_peaks, in: {signals: clean.signals}}
  windows: {uses: window, in: {signals: ingest.signals, beats: peaks.beats}}
  split: {uses: split, in: {beats: peaks.beats}}
  train: {uses: train, in: {windows: windows.windows, split: split.split}}
  curves: {uses: plot, in: {metrics: train.metrics}}
publish: {plots/: [curves.figures], models/net.json: train.model}
";

    fn made(yaml: &str) -> Plan {
        let pipeline = load_with("p.yaml".as_ref(), &[], &|_| Ok(yaml.to_owned())).expect("the form is right");
        plan(&pipeline, &registry()).expect("the pipeline is right")
    }

    #[test]
    fn mermaid_text() {
        expect![[r#"
            flowchart TD
              n0[["ingest"]]
              n1[["clean<br/><i>smooth</i>"]]
              n2[["peaks<br/><i>detect_peaks</i>"]]
              n3["split"]
              n4[["windows<br/><i>window</i>"]]
              n5["train"]
              n6["curves<br/><i>plot</i>"]
              n0 -->|signals| n1
              n1 -->|signals| n2
              n2 ==>|beats| n3
              n2 -->|beats| n4
              n0 -->|signals| n4
              n3 -->|split| n5
              n4 ==>|windows| n5
              n5 -->|metrics| n6
              n5 -.-> p0("models/net.json")
              n6 -.-> p1("plots/")
        "#]]
        .assert_eq(&mermaid(&made(YAML)));
    }

    #[test]
    fn dot_text() {
        expect![[r#"
            digraph "small" {
              node [shape=box, style=rounded, fontname="Helvetica"];
              edge [fontname="Helvetica", fontsize=10];
              "ingest" [label="ingest", peripheries=2];
              "clean" [label="clean\nsmooth", peripheries=2];
              "peaks" [label="peaks\ndetect_peaks", peripheries=2];
              "split" [label="split"];
              "windows" [label="windows\nwindow", peripheries=2];
              "train" [label="train"];
              "curves" [label="curves\nplot"];
              "ingest" -> "clean" [label="signals", tooltip="ingest.signals to clean.signals"];
              "clean" -> "peaks" [label="signals", tooltip="clean.signals to peaks.signals"];
              "peaks" -> "split" [label="beats", style=bold, tooltip="peaks.beats to split.beats"];
              "peaks" -> "windows" [label="beats", tooltip="peaks.beats to windows.beats"];
              "ingest" -> "windows" [label="signals", tooltip="ingest.signals to windows.signals"];
              "split" -> "train" [label="split", tooltip="split.split to train.split"];
              "windows" -> "train" [label="windows", style=bold, tooltip="windows.windows to train.windows"];
              "train" -> "curves" [label="metrics", tooltip="train.metrics to curves.metrics"];
              "models/net.json" [shape=note, style=solid, fontsize=10];
              "train" -> "models/net.json" [style=dashed];
              "plots/" [shape=note, style=solid, fontsize=10];
              "curves" -> "plots/" [style=dashed];
            }
        "#]]
        .assert_eq(&dot(&made(YAML)));
    }

    #[test]
    fn an_svg_shows_every_node_port_and_target_once() {
        let picture = svg(&made(YAML));
        if let Ok(path) = std::env::var("ECGPIPE_PICTURE") {
            std::fs::write(path, &picture).expect("the picture can be written");
        }
        for text in [">windows</text>", ">detect_peaks</text>", ">figures: files</text>", "\u{2192} models/net.json<"] {
            assert!(picture.contains(text), "{text} in {picture}");
        }
        // One line for each edge and one more where clean, peaks and windows separate ingest from windows.
        assert_eq!(picture.matches("marker-end").count(), 8);
        assert_eq!(picture.matches(" C").count(), 8 + 2);
        assert_eq!(picture.matches("<g>").count(), picture.matches("</g>").count() - 1);
    }

    #[test]
    fn pictures_do_not_depend_on_the_order_in_the_file() {
        let mut stages: Vec<&str> = YAML.lines().filter(|line| line.starts_with("  ")).collect();
        stages.reverse();
        let publish = "publish: {models/net.json: train.model, plots/: [curves.figures]}";
        let other = format!("{publish}\nstages:\n{}\nname: small\n", stages.join("\n"));
        assert_eq!(svg(&made(&other)), svg(&made(YAML)));
        assert_eq!(dot(&made(&other)), dot(&made(YAML)));
        assert_eq!(mermaid(&made(&other)), mermaid(&made(YAML)));
    }

    #[test]
    fn boxes_do_not_overlap() {
        let plan = made(YAML);
        let drawing = Drawing::of(&plan);
        for (row, items) in drawing.rows.iter().enumerate() {
            for pair in items.windows(2) {
                let room = drawing.half(&plan, pair[0]) + drawing.half(&plan, pair[1]);
                let apart = drawing.x[&(row, pair[1])] - drawing.x[&(row, pair[0])];
                assert!(apart >= room + LINE_GAP - 1.0, "{pair:?} in row {row} are {apart} apart");
            }
        }
    }
}
