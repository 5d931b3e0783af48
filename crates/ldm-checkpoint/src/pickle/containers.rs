//! Containers and calls of the pickle interpreter.

use super::Unpickler;
use super::arena::{Id, Node, cost};
use super::cursor::damaged;
use super::globals::{self, CallValue};
use super::tensors;

impl Unpickler<'_> {
    pub(super) fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        self.memory.spend(items.len() * cost::ITEM)?;
        let top = self.top()?;
        match &mut self.arena.nodes[top as usize] {
            Node::List(list) => list.extend(items),
            Node::Inert => {}
            _ => return Err(damaged("invalid list", self.file.at)),
        }
        Ok(())
    }

    pub(super) fn set_items(&mut self, items: &[Id]) -> Result<(), String> {
        self.memory.spend(items.len() * cost::PAIR)?;
        let (pairs, rest) = items.as_chunks::<2>();
        let top = self.top()?;
        match &mut self.arena.nodes[top as usize] {
            Node::Dict(dict) if rest.is_empty() => {
                dict.extend(pairs.iter().map(|[key, value]| (*key, *value)));
            }
            Node::Inert => {}
            _ => return Err(damaged("invalid dict", self.file.at)),
        }
        Ok(())
    }

    /// Executes REDUCE and NEWOBJ: a known function is replaced by its value, any other is refused.
    pub(super) fn call(&mut self, callee: Id, arguments: Id) -> Result<(), String> {
        let Node::Global(module, name) = *self.arena.get(callee) else {
            return Err(damaged("invalid call", self.file.at));
        };
        let Node::Tuple(arguments) = self.arena.get(arguments) else {
            return Err(damaged("invalid call", self.file.at));
        };
        match globals::call(module, name, arguments, &self.arena)? {
            CallValue::Same(id) => self.push_id(id)?,
            CallValue::New(node) => self.push(node)?,
            CallValue::OrderedDict(list) => {
                let pairs = self.arena.items(list).unwrap_or_default();
                self.memory.spend(pairs.len() * cost::PAIR)?;
                let pair = |id: &Id| self.arena.items(*id).and_then(|pair| <[Id; 2]>::try_from(pair).ok());
                let pairs: Option<Vec<(Id, Id)>> = pairs.iter().map(|id| pair(id).map(Into::into)).collect();
                let pairs = pairs.ok_or_else(|| damaged("invalid dict", self.file.at))?;
                self.spend(pairs.len())?;
                self.push(Node::Dict(pairs))?;
            }
        }
        Ok(())
    }

    /// BUILD sets attributes of a value. Those of a dict (`_metadata`) and of a tensor are not weights.
    pub(super) fn build(&mut self, state: Id) -> Result<(), String> {
        let top = self.top()?;
        match self.arena.get(top) {
            Node::Dict(_) | Node::Tensor(_) | Node::Sparse(_) | Node::OtherTensor(_) | Node::Inert => Ok(()),
            Node::BlankTensor => {
                let arguments = self.arena.items(state).unwrap_or_default();
                let parts = tensors::dense(arguments, None, &self.arena);
                let node =
                    Node::Tensor(Box::new(parts.ok_or_else(|| damaged("invalid tensor", self.file.at))?));
                self.memory.spend(cost::of(&node))?;
                self.arena.nodes[top as usize] = node;
                Ok(())
            }
            Node::Global(module, name) => Err(globals::refusal("change", module, name)),
            _ => Err(damaged("invalid object", self.file.at)),
        }
    }

    /// Returns the error for INST and OBJ, which state dicts never have, with the class they would create.
    pub(super) fn refuse_instance(&mut self, opcode: u8) -> String {
        let named = if opcode == b'i' {
            self.file.line().and_then(|module| Ok((module, self.file.line()?))).ok()
        } else {
            let class = self.pop_mark().ok().and_then(|items| items.first().copied());
            class.and_then(
                |id| if let Node::Global(m, n) = self.arena.get(id) { Some((*m, *n)) } else { None },
            )
        };
        named.map_or_else(
            || damaged("invalid call", self.file.at),
            |(module, name)| globals::refusal("call", module, name),
        )
    }
}
