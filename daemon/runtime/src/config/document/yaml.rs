//! YAML 1.2, with places. Built from the parser's events rather than its tree, since these carry the text of a scalar
//! as it was written: `1.10` is a version, not the number 1.1.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Span, StrInput};

use super::{Fault, Node, Place, Table};

/// More than any configuration; keeps aliases of aliases from filling the memory. (The parser limits the depth.)
const MAX_NODES: usize = 100_000;

pub(super) fn parse(text: &str) -> Result<Table, Fault> {
    let mut reader = Reader {
        parser: Parser::new_from_str(text),
        anchors: HashMap::new(),
        nodes: 0,
    };
    let root = loop {
        match reader.next()? {
            (Event::StreamStart | Event::DocumentStart(_), _) => {}
            (Event::StreamEnd, span) => return Err(Fault::at(place(span.start), EXPECTED)),
            (event, span) => break reader.node(event, span)?,
        }
    };
    loop {
        match reader.next()? {
            (Event::DocumentEnd, _) => {}
            (Event::StreamEnd, _) => break,
            (_, span) => {
                let message = "a second YAML document begins here; a file holds one connector";
                return Err(Fault::at(place(span.start), message));
            }
        }
    }
    match root {
        Node::Table(table) => Ok(table),
        Node::Null | Node::Scalar(_) | Node::List(_) => {
            Err(Fault::at(Place { line: 1, column: 1 }, EXPECTED))
        }
    }
}

const EXPECTED: &str = "must hold a YAML mapping, one `key: value` a line";

struct Reader<'a> {
    parser: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), Fault> {
        match self.parser.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(invalid(&error)),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn node(&mut self, event: Event<'a>, span: Span) -> Result<Node, Fault> {
        let before = self.nodes;
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(Fault::at(place(span.start), "holds too many values"));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => {
                let null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                (
                    if null {
                        Node::Null
                    } else {
                        Node::Scalar(text.into_owned())
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, _) => (self.list()?, anchor),
            Event::MappingStart(anchor, _) => (self.table()?, anchor),
            Event::Alias(anchor) => {
                let (node, size) = self.anchors.get(&anchor).cloned().ok_or_else(|| {
                    Fault::at(
                        place(span.start),
                        "this alias stands inside of what it stands for",
                    )
                })?;
                self.nodes += size;
                (node, 0)
            }
            _ => return Err(Fault::at(place(span.start), EXPECTED)),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), self.nodes - before));
        }
        Ok(node)
    }

    fn list(&mut self) -> Result<Node, Fault> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Node::List(items)),
                (event, span) => items.push((place(span.start), self.node(event, span)?)),
            }
        }
    }

    fn table(&mut self) -> Result<Node, Fault> {
        let mut table = Table::new();
        loop {
            let (key, key_place) = match self.next()? {
                (Event::MappingEnd, _) => return Ok(Node::Table(table)),
                (Event::Scalar(key, _, 0, _), span) => (key.into_owned(), place(span.start)),
                (_, span) => return Err(Fault::at(place(span.start), "a key must be plain text")),
            };
            if key == "<<" {
                return Err(Fault::at(
                    key_place,
                    "merge keys (<<) are no part of YAML 1.2; write the keys out",
                ));
            }
            let (event, span) = self.next()?;
            let node = self.node(event, span)?;
            table.push((key, key_place, node));
        }
    }
}

fn invalid(error: &ScanError) -> Fault {
    Fault::at(
        place(*error.marker()),
        format!("is not valid YAML: {}", error.info()),
    )
}

fn place(marker: Marker) -> Place {
    Place {
        line: marker.line().max(1) as u32,
        column: marker.col() as u32 + 1,
    }
}
