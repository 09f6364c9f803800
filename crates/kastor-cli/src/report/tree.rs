//! The call tree of everything that was read: the paths of all sessions, joined by their names.
//!
//! Nothing here is recursive, however deep paths are.

use std::collections::HashMap;

use kastor_export::capture::Tables;

use super::sums::Sums;

/// Stands for all levels below the limits of paths.
const DEEPER: &str = "(deeper)";
const DEEPER_BIT: u32 = 1 << 31;
const UNKNOWN: &str = "(unknown)";
/// Bytes of a path's text.
const MAX_TEXT_BYTES: usize = 64 << 10;

/// A place in the tree; 0 is above all roots.
pub(crate) type Place = u32;

/// Paths of all sessions.
#[derive(Clone, Debug)]
pub(crate) struct Tree {
    nodes: Vec<Node>,
    names: HashMap<Box<str>, u32>,
    texts: Vec<Box<str>>,
    places: HashMap<(Place, u32, bool), Place>,
}

/// One path.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) parent: Place,
    name: u32,
    /// Whether it stands for all levels below the limits.
    pub(crate) is_deeper: bool,
    pub(crate) depth: u32,
}

impl Default for Tree {
    fn default() -> Self {
        let above_all = Node { parent: 0, name: 0, is_deeper: false, depth: 0 };
        Tree { nodes: vec![above_all], names: HashMap::new(), texts: Vec::new(), places: HashMap::new() }
    }
}

impl Tree {
    /// Number of places, with the one above all.
    pub(crate) fn len(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn node(&self, place: Place) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    /// The last name of a path.
    pub(crate) fn name(&self, place: Place) -> &str {
        self.node(place).and_then(|node| self.texts.get(node.name as usize)).map_or("", |text| text)
    }

    /// The names of a path joined with dots, at most 64 KiB.
    pub(crate) fn text(&self, place: Place) -> String {
        let (mut names, mut at) = (Vec::new(), place);
        while let Some(node) = self.node(at).filter(|_| at != 0) {
            names.push((self.name(at), node.is_deeper));
            at = node.parent;
        }
        let mut text = String::new();
        for (name, is_deeper) in names.into_iter().rev() {
            if text.len() + name.len() > MAX_TEXT_BYTES {
                break;
            }
            match (is_deeper, text.is_empty()) {
                (true, _) => text.push('…'),
                (false, false) => text.push('.'),
                (false, true) => {}
            }
            if is_deeper {
                text.push('.');
            }
            text.push_str(name);
        }
        text
    }

    /// The place of a path of a session; `known` remembers places by number.
    pub(crate) fn place(&mut self, tables: &Tables, path: u32, known: &mut HashMap<u32, Place>) -> Place {
        let (mut below, mut at) = (Vec::new(), Some(path));
        let mut above = 0;
        while let Some(number) = at {
            if let Some(place) = known.get(&number) {
                above = *place;
                break;
            }
            below.push(number);
            at = tables.parent(number);
        }
        for number in below.into_iter().rev() {
            let is_deeper = number & DEEPER_BIT != 0;
            let name = match (tables.levels(number), is_deeper) {
                (0, _) => UNKNOWN,
                (_, true) => DEEPER,
                (_, false) => tables.path_name(number),
            };
            above = self.child(above, name, is_deeper);
            known.insert(number, above);
        }
        above
    }

    /// The place below `parent` with this name.
    pub(crate) fn child(&mut self, parent: Place, name: &str, is_deeper: bool) -> Place {
        let name = match self.names.get(name) {
            Some(number) => *number,
            None => {
                let number = self.texts.len() as u32;
                self.texts.push(name.into());
                self.names.insert(name.into(), number);
                number
            }
        };
        let depth = if parent == 0 { 0 } else { self.node(parent).map_or(0, |node| node.depth + 1) };
        let nodes = &mut self.nodes;
        *self.places.entry((parent, name, is_deeper)).or_insert_with(|| {
            nodes.push(Node { parent, name, is_deeper, depth });
            (nodes.len() - 1) as Place
        })
    }
}

/// Sums by place.
#[derive(Debug, Default)]
pub(crate) struct ByPlace {
    sums: Vec<Sums>,
}

impl ByPlace {
    pub(crate) fn merge(&mut self, place: Place, sums: Sums) {
        if self.sums.len() <= place as usize {
            self.sums.resize_with(place as usize + 1, Sums::default);
        }
        if let Some(known) = self.sums.get_mut(place as usize) {
            if known.calls == 0 { *known = sums } else { known.merge(&sums) }
        }
    }

    pub(crate) fn get(&self, place: Place) -> Option<&Sums> {
        self.sums.get(place as usize).filter(|sums| sums.calls > 0)
    }

    /// Time in each place less the time in the places right below it that is part of it.
    pub(crate) fn self_ns(&self, tree: &Tree) -> Vec<u64> {
        let mut below = vec![0_u64; tree.len()];
        for (place, sums) in self.sums.iter().enumerate().skip(1) {
            // Everything below the limits is one place, which is its own parent too.
            let Some(node) = tree.node(place as Place).filter(|node| !node.is_deeper) else { continue };
            if let Some(total) = below.get_mut(node.parent as usize) {
                *total = total.saturating_add(sums.in_parent_ns);
            }
        }
        let total = |place: usize| self.sums.get(place).map_or(0, |sums| sums.total_ns);
        below.iter().enumerate().map(|(place, below)| total(place).saturating_sub(*below)).collect()
    }
}
