//! YAML as a small tree that knows where everything stands, and the only place that names the YAML library.
//!
//! Scalars keep the text that was written: what `no`, `300` or `012345678901` means is for the setting to say, so an
//! account id with a leading zero stays one. Keys are unique, aliases and merge keys (`<<`) are resolved, and the
//! size of what an alias unfolds to is bounded, so a small file cannot become a large tree.
//!
//! Nothing here prints what a file holds: it may be a secret.

use std::collections::{HashMap, HashSet};

use serde_yaml::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag, options};

/// Most collections inside each other.
pub(super) const DEPTH_MAX: usize = 64;
/// Most bytes that a tree may take, counted as text plus [`NODE_BYTES`] a node, after aliases are unfolded.
pub(super) const TREE_BYTES_MAX: usize = 64 << 20;
/// What a node is counted as.
const NODE_BYTES: usize = 96;
/// The key that merges another mapping in.
const MERGE_KEY: &str = "<<";

/// A place in the file; lines and columns from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) line: u64,
    pub(super) column: u64,
}

/// A value and where it stands. It has no `Debug`: it may hold a secret.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) at: Position,
    pub(super) value: Value,
}

#[derive(Clone)]
pub(super) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// Any other scalar, as written.
    Text(String),
    List(Vec<Node>),
    Mapping(Vec<(Key, Node)>),
}

#[derive(Clone)]
pub(super) struct Key {
    pub(super) at: Position,
    pub(super) name: String,
}

/// Why a text is not YAML that we can read.
#[derive(Debug)]
pub(super) struct SyntaxError {
    pub(super) at: Position,
    pub(super) problem: String,
}

/// Reads all documents of a text; none when it holds only comments.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut builder = Builder::default();
    for event in Parser::new_from_str_with_options(text, parser_options()) {
        let (event, span) = event.map_err(|error| SyntaxError {
            at: position(*error.marker()),
            problem: format!("not valid YAML: {}", error.kind()),
        })?;
        builder.event(event, &span)?;
    }
    Ok(builder.roots)
}

fn parser_options() -> Options {
    options! {
        disallow_directives: true,
        emit_comments: false,
        flow_nesting_limit: DEPTH_MAX,
        block_nesting_limit: DEPTH_MAX,
    }
}

fn position(mark: serde_yaml::granit_parser::Marker) -> Position {
    Position {
        line: mark.line() as u64,
        column: mark.col() as u64 + 1,
    }
}

/// A collection that is not closed yet.
struct Open {
    at: Position,
    anchor: usize,
    inside: Inside,
}

enum Inside {
    List(Vec<Node>),
    Mapping {
        entries: Vec<(Key, Node)>,
        names: HashSet<String>,
        key: Option<Key>,
    },
}

#[derive(Default)]
struct Builder {
    roots: Vec<Node>,
    open: Vec<Open>,
    anchors: HashMap<usize, Anchored>,
    bytes: usize,
}

struct Anchored {
    node: Node,
    bytes: usize,
    depth: usize,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), SyntaxError> {
        let at = position(span.start);
        match event {
            Event::DocumentStart(..) => self.anchors.clear(),
            Event::Scalar(text, style, anchor, tag) => {
                let is_text = check_tag(tag.as_deref(), at)?;
                let plain = style == ScalarStyle::Plain && !is_text;
                let value = if plain && is_null(&text) {
                    Value::Null
                } else {
                    Value::Text(text.into_owned())
                };
                self.add(Node { at, value }, anchor)?;
            }
            Event::SequenceStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                self.open(at, anchor, Inside::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                check_tag(tag.as_deref(), at)?;
                let inside = Inside::Mapping {
                    entries: Vec::new(),
                    names: HashSet::new(),
                    key: None,
                };
                self.open(at, anchor, inside)?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.close()?,
            Event::Alias(id) => self.alias(id, at)?,
            _ => {}
        }
        Ok(())
    }

    fn open(&mut self, at: Position, anchor: usize, inside: Inside) -> Result<(), SyntaxError> {
        if self.open.len() >= DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.open.push(Open { at, anchor, inside });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(Open { at, anchor, inside }) = self.open.pop() else {
            return Ok(());
        };
        let value = match inside {
            Inside::List(items) => Value::List(items),
            Inside::Mapping { entries, .. } => Value::Mapping(merge(entries)?),
        };
        self.add(Node { at, value }, anchor)
    }

    fn alias(&mut self, id: usize, at: Position) -> Result<(), SyntaxError> {
        let Some(anchored) = self.anchors.get(&id) else {
            return Err(error(at, "an alias cannot stand inside what it names"));
        };
        if self.open.len() + anchored.depth > DEPTH_MAX {
            return Err(too_deep(at));
        }
        self.bytes = self.bytes.saturating_add(anchored.bytes);
        if self.bytes > TREE_BYTES_MAX {
            return Err(error(at, "aliases unfold to more than can be meant"));
        }
        let node = anchored.node.clone();
        self.place(node)
    }

    /// Takes a finished node that was written out.
    fn add(&mut self, node: Node, anchor: usize) -> Result<(), SyntaxError> {
        if anchor != 0 {
            let (bytes, depth) = measure(&node);
            self.bytes = self.bytes.saturating_add(bytes);
            let node = node.clone();
            self.anchors.insert(anchor, Anchored { node, bytes, depth });
        }
        self.bytes = self.bytes.saturating_add(own_bytes(&node));
        if self.bytes > TREE_BYTES_MAX {
            return Err(error(node.at, "the document is too large"));
        }
        self.place(node)
    }

    /// Puts a finished node where the innermost open collection wants it.
    fn place(&mut self, node: Node) -> Result<(), SyntaxError> {
        match self.open.last_mut().map(|open| &mut open.inside) {
            None => self.roots.push(node),
            Some(Inside::List(items)) => items.push(node),
            Some(Inside::Mapping {
                entries,
                names,
                key,
            }) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => *key = Some(new_key(node, names)?),
            },
        }
        Ok(())
    }
}

fn new_key(node: Node, names: &mut HashSet<String>) -> Result<Key, SyntaxError> {
    let Value::Text(name) = node.value else {
        return Err(error(node.at, "a key must be text"));
    };
    if !names.insert(name.clone()) {
        return Err(error(node.at, &format!("key `{name}` is given twice")));
    }
    Ok(Key { at: node.at, name })
}

/// Resolves `<<`: keys of the mapping itself win, then earlier merged mappings.
fn merge(entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, SyntaxError> {
    if entries.iter().all(|(key, _)| key.name != MERGE_KEY) {
        return Ok(entries);
    }
    let (merges, mut merged): (Vec<_>, Vec<_>) = entries
        .into_iter()
        .partition(|(key, _)| key.name == MERGE_KEY);
    let mut names: HashSet<String> = merged.iter().map(|(key, _)| key.name.clone()).collect();
    for (key, node) in merges {
        let sources = match node.value {
            Value::List(items) => items,
            value => vec![Node { at: node.at, value }],
        };
        for source in sources {
            let Value::Mapping(inherited) = source.value else {
                return Err(error(key.at, "`<<` takes a mapping or a list of mappings"));
            };
            for (key, node) in inherited {
                if names.insert(key.name.clone()) {
                    merged.push((key, node));
                }
            }
        }
    }
    Ok(merged)
}

/// Whether the tag says that a scalar is text whatever it looks like.
fn check_tag(tag: Option<&Tag>, at: Position) -> Result<bool, SyntaxError> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema_tag("str") || tag.original() == "!" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(_) => Err(error(at, "tags such as `!name` mean nothing here")),
    }
}

fn is_null(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

/// Bytes and nesting of a finished tree; the recursion is bounded by [`DEPTH_MAX`].
fn measure(node: &Node) -> (usize, usize) {
    let own = own_bytes(node);
    let children: Vec<(usize, usize)> = match &node.value {
        Value::Null | Value::Text(_) => return (own, 0),
        Value::List(items) => items.iter().map(measure).collect(),
        Value::Mapping(entries) => entries
            .iter()
            .map(|(key, node)| {
                let (bytes, depth) = measure(node);
                (bytes + key.name.len() + NODE_BYTES, depth)
            })
            .collect(),
    };
    children
        .into_iter()
        .fold((own, 1), |(all, deepest), (bytes, depth)| {
            (all.saturating_add(bytes), deepest.max(depth + 1))
        })
}

fn own_bytes(node: &Node) -> usize {
    match &node.value {
        Value::Text(text) => text.len() + NODE_BYTES,
        _ => NODE_BYTES,
    }
}

fn too_deep(at: Position) -> SyntaxError {
    error(at, "nested too deep")
}

fn error(at: Position, problem: &str) -> SyntaxError {
    SyntaxError {
        at,
        problem: problem.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Result<Node, SyntaxError> {
        Ok(documents(text)?.remove(0))
    }

    fn show(node: &Node) -> String {
        match &node.value {
            Value::Null => "~".to_owned(),
            Value::Text(text) => text.clone(),
            Value::List(items) => {
                format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(" "))
            }
            Value::Mapping(entries) => {
                let entries: Vec<_> = entries
                    .iter()
                    .map(|(key, node)| format!("{}:{}", key.name, show(node)))
                    .collect();
                format!("{{{}}}", entries.join(" "))
            }
        }
    }

    #[test]
    fn scalars_keep_what_was_written() {
        let node = one("a: no\nb: 012\nc: '~'\nd: ~\ne:\nf: \"x\\ty\"\n").unwrap();
        assert_eq!(show(&node), "{a:no b:012 c:~ d:~ e:~ f:x\ty}");
        let Value::Mapping(entries) = node.value else {
            panic!("a mapping");
        };
        assert!(matches!(entries[2].1.value, Value::Text(_)));
        assert!(matches!(entries[3].1.value, Value::Null));
        assert_eq!(entries[4].0.at, Position { line: 5, column: 1 });
        assert_eq!(entries[5].1.at, Position { line: 6, column: 4 });
    }

    #[test]
    fn a_key_given_twice_is_refused_where_it_stands() {
        let error = one("a: 1\nb:\n  c: 1\n  c: 2\n").err().unwrap();
        assert_eq!(error.at, Position { line: 4, column: 3 });
        assert!(error.problem.contains("`c` is given twice"));
    }

    #[test]
    fn aliases_and_merge_keys_are_resolved() {
        let node = one("a: &x {k: 1, l: 2}\nb: *x\nc: {<<: *x, k: 3}\n").unwrap();
        assert_eq!(show(&node), "{a:{k:1 l:2} b:{k:1 l:2} c:{k:3 l:2}}");
        assert!(one("a: &x [*x]\n").is_err());
        assert!(one("a: *nowhere\n").is_err());
    }

    #[test]
    fn what_unfolds_without_end_is_refused() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..9 {
            let below = format!("*a{}", level - 1);
            let items = [below.as_str(); 9].join(",");
            bomb.push_str(&format!("a{level}: &a{level} [{items}]\n"));
        }
        assert!(documents(&bomb).is_err());
        assert!(documents(&"[".repeat(20_000)).is_err());
        assert!(documents(&"- ".repeat(20_000)).is_err());
    }

    #[test]
    fn application_tags_and_keys_that_are_no_text_are_refused() {
        assert!(one("a: !Ref x\n").is_err());
        assert!(one("[a]: x\n").is_err());
        assert_eq!(show(&one("a: !!str 1\n").unwrap()), "{a:1}");
    }
}
