//! The values of a pickle.
//!
//! They are stored in one list and refer to each other by index, so a value that contains itself is harmless and
//! nothing recurses.

use crate::file_dtype::FileDtype;

/// A value's index in the arena.
pub(crate) type Id = u32;

/// A value. Text and bytes borrow from the file.
#[derive(Debug, Clone)]
pub(crate) enum Node<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    Tuple(Box<[Id]>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// The module and name of a class or function, as text only.
    Global(&'a str, &'a str),
    /// A storage, by the tuple that names it.
    Storage(Id),
    Tensor(Box<TensorParts>),
    /// A sparse tensor.
    Sparse(Box<SparseParts>),
    /// A tensor of a kind that is not supported, and that kind.
    OtherTensor(Box<str>),
    /// A tensor before its BUILD, as Python 2 wrote it.
    BlankTensor,
    /// An ignored value: an integer too long, a set, a numpy scalar.
    Inert,
}

/// A pickled tensor: its storage, and a window in elements.
#[derive(Debug, Clone)]
pub(crate) struct TensorParts {
    pub(crate) storage: Id,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    pub(crate) strides: Vec<i64>,
    /// The dtype, if it is not the storage's.
    pub(crate) dtype: Option<FileDtype>,
    pub(crate) change: TensorChangeParts,
}

/// A change of the values in the storage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum TensorChangeParts {
    None,
    /// Lazy conjugate or negative.
    Signed {
        conjugate: bool,
        negative: bool,
    },
    Quantized {
        scale: f64,
        zero_point: f64,
    },
    /// The tensors of the scales and the zero points.
    QuantizedByChannel {
        scales: Id,
        zero_points: Id,
        axis: usize,
    },
}

/// A pickled sparse tensor.
#[derive(Debug, Clone)]
pub(crate) struct SparseParts {
    pub(crate) layout: SparseLayout,
    pub(crate) shape: Vec<i64>,
}

/// The tensors of a sparse tensor, by layout.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SparseLayout {
    Coo {
        indices: Id,
        values: Id,
    },
    /// CSR by rows, CSC by columns.
    Compressed {
        bounds: Id,
        across: Id,
        values: Id,
        by_rows: bool,
    },
}

/// All values of one pickle.
#[derive(Default)]
pub(crate) struct Arena<'a> {
    pub(crate) nodes: Vec<Node<'a>>,
}

impl<'a> Arena<'a> {
    pub(crate) fn get(&self, id: Id) -> &Node<'a> {
        &self.nodes[id as usize]
    }

    pub(crate) fn text(&self, id: Id) -> Option<&'a str> {
        if let Node::Text(text) = self.get(id) { Some(text) } else { None }
    }

    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        if let Node::Int(value) = self.get(id) { Some(*value) } else { None }
    }

    /// Returns an integer or a floating-point number.
    pub(crate) fn number(&self, id: Id) -> Option<f64> {
        match self.get(id) {
            Node::Int(value) => Some(*value as f64),
            Node::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the items of a tuple or a list.
    pub(crate) fn items(&self, id: Id) -> Option<&[Id]> {
        match self.get(id) {
            Node::Tuple(items) => Some(items),
            Node::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the pairs of a dict.
    pub(crate) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        if let Node::Dict(pairs) = self.get(id) { Some(pairs) } else { None }
    }

    /// Returns the value of a dict's key; the last one counts, as in Python.
    pub(crate) fn value(&self, dict: Id, key: &str) -> Option<Id> {
        self.pairs(dict)?
            .iter()
            .rev()
            .find(|(name, _)| self.text(*name) == Some(key))
            .map(|(_, value)| *value)
    }

    /// Returns whether the value is a tensor of any kind.
    pub(crate) fn is_tensor(&self, id: Id) -> bool {
        matches!(self.get(id), Node::Tensor(_) | Node::Sparse(_) | Node::OtherTensor(_) | Node::BlankTensor)
    }
}

/// Upper bounds of memory, in bytes: a growing vector temporarily holds its items up to three times, a hash table a
/// little more.
pub(crate) mod cost {
    use super::{Id, Node};

    pub(in super::super) const ITEM: usize = 3 * size_of::<Id>();
    pub(in super::super) const PAIR: usize = 2 * ITEM;
    pub(in super::super) const MARK: usize = 3 * size_of::<usize>();
    pub(in super::super) const MEMO: usize = 32;
    const NODE: usize = 3 * size_of::<Node>();
    /// A storage, which is in two tables.
    const STORAGE: usize = 256;
    /// A tensor without its axes.
    const TENSOR: usize = 160;
    const AXIS: usize = 3 * size_of::<i64>();

    /// A value with its contents.
    pub(in super::super) fn of(node: &Node) -> usize {
        NODE + match node {
            Node::Tuple(items) => items.len() * ITEM,
            Node::List(items) => items.len() * ITEM,
            Node::Dict(pairs) => pairs.len() * PAIR,
            Node::Storage(_) => STORAGE,
            Node::Tensor(parts) => TENSOR + (parts.shape.len() + parts.strides.len()) * AXIS,
            Node::Sparse(parts) => TENSOR + parts.shape.len() * AXIS,
            Node::OtherTensor(kind) => kind.len(),
            _ => 0,
        }
    }
}
