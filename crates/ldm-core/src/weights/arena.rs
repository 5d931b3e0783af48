//! The values of a pickle.
//!
//! They live side by side and name each other by number, so a value that holds itself is harmless and nothing
//! recurses.

/// A value's place in the arena.
pub(super) type Id = u32;

/// A value. Text and bytes stay in the file.
#[derive(Debug, Clone)]
pub(super) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A name of a class or function: a word, not the thing.
    Global(&'a str, &'a str),
    /// A storage, by the tuple that names it in its container.
    Storage(Id),
    Tensor(Box<TensorParts>),
    /// A value nobody will look at: a number too long, a set, a numpy scalar.
    Inert,
}

/// A tensor as pickled: the storage's node, and a window in elements.
#[derive(Debug, Clone)]
pub(super) struct TensorParts {
    pub(super) storage: Id,
    pub(super) offset: i64,
    pub(super) shape: Vec<i64>,
    pub(super) strides: Vec<i64>,
    /// The dtype where it is not the storage's.
    pub(super) dtype: Option<tch::Kind>,
}

/// All values of one pickle.
#[derive(Default)]
pub(super) struct Arena<'a> {
    pub(super) nodes: Vec<Node<'a>>,
}

impl<'a> Arena<'a> {
    pub(super) fn get(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    pub(super) fn text(&self, id: Id) -> Option<&'a str> {
        if let Node::Text(text) = self.get(id) { Some(text) } else { None }
    }

    pub(super) fn int(&self, id: Id) -> Option<i64> {
        if let Node::Int(value) = self.get(id) { Some(*value) } else { None }
    }

    /// The items of a tuple or a list.
    pub(super) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::Tuple(items) => Some(items),
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a dict.
    pub(super) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(pairs) = self.get(id) { Some(pairs) } else { None }
    }

    /// The value of a dict's key; as in Python the last one counts.
    pub(super) fn value(&self, dict: Id, key: &str) -> Option<Id> {
        self.pairs(dict)?
            .iter()
            .rev()
            .find(|(name, _)| self.text(*name) == Some(key))
            .map(|(_, value)| *value)
    }
}
