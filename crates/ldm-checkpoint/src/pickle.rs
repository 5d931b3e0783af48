//! A pickle interpreter that cannot call anything.
//!
//! It knows the opcodes of protocols 2 to 5 that data needs. Every count in the file is checked against the bytes
//! present, memory is never reserved by a count, a step creates at most one value, and all values together stay within
//! the caller's memory limit.

pub(crate) mod arena;
mod containers;
pub(crate) mod cursor;
pub(crate) mod globals;
mod inert;
mod tensors;
pub(crate) mod writer;

use std::collections::HashMap;

use crate::memory::MemoryBudget;
use arena::{Arena, Id, Node, cost};
use cursor::{Cursor, damaged};

/// The most steps; a model of ten thousand tensors takes half a million, and this many create a gigabyte of values.
const STEPS: usize = 1 << 24;

/// The values of one pickle.
pub(crate) struct Pickle<'a> {
    pub(crate) arena: Arena<'a>,
    pub(crate) root: Id,
    /// The offset of the byte after it.
    pub(crate) end: usize,
}

/// Reads the pickle at `start`, whose values may take `memory` bytes.
pub(crate) fn read(bytes: &[u8], start: usize, memory: usize) -> Result<Pickle<'_>, String> {
    let unpickler = Unpickler {
        file: Cursor { bytes, at: start },
        arena: Arena::default(),
        stack: Vec::new(),
        marks: Vec::new(),
        memo: HashMap::new(),
        copies: bytes.len().saturating_sub(start).min(STEPS),
        memory: MemoryBudget::new(memory, "the values of its pickle"),
    };
    unpickler.run()
}

struct Unpickler<'a> {
    file: Cursor<'a>,
    arena: Arena<'a>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// The number of items that may still be copied from one value into another.
    copies: usize,
    memory: MemoryBudget,
}

impl<'a> Unpickler<'a> {
    fn run(mut self) -> Result<Pickle<'a>, String> {
        for _ in 0..STEPS {
            let place = self.file.at;
            let opcode = self.file.byte()?;
            if opcode == b'.' {
                let root = self.pop()?;
                return Ok(Pickle { arena: self.arena, root, end: self.file.at });
            }
            self.step(opcode, place)?;
        }
        Err(format!("its pickle takes more than {STEPS} steps, more than any state dict"))
    }

    fn step(&mut self, opcode: u8, place: usize) -> Result<(), String> {
        if self.stack_step(opcode)? || self.scalar_step(opcode)? || self.container_step(opcode)? {
            return Ok(());
        }
        match opcode {
            b'c' => {
                let (module, name) = (self.file.line()?, self.file.line()?);
                self.push(Node::Global(module, name))?;
            }
            0x93 => {
                let items = self.pop_last(2)?;
                let (module, name) = (self.arena.text(items[0]), self.arena.text(items[1]));
                let names = module.zip(name).filter(|(a, b)| a.len().max(b.len()) <= cursor::NAME);
                let (module, name) = names.ok_or_else(|| damaged("invalid name", place))?;
                self.push(Node::Global(module, name))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Storage(id))?;
            }
            b'R' | 0x81 => {
                let items = self.pop_last(2)?;
                self.call(items[0], items[1])?;
            }
            0x92 => {
                let items = self.pop_last(3)?;
                self.call(items[0], items[1])?;
            }
            b'b' => {
                let state = self.pop()?;
                self.build(state)?;
            }
            b'i' | b'o' => return Err(self.refuse_instance(opcode)),
            _ => return Err(format!("unsupported pickle opcode {opcode:#04x} at byte {place}")),
        }
        Ok(())
    }

    /// Runs an opcode of the frame, the stack or the memo; returns whether `opcode` is one.
    fn stack_step(&mut self, opcode: u8) -> Result<bool, String> {
        match opcode {
            0x80 => {
                let protocol = self.file.byte()?;
                if !(2..=5).contains(&protocol) {
                    return Err(format!("expected a pickle of protocol 2 to 5, got {protocol}"));
                }
            }
            0x95 => {
                self.file.take(8)?; // FRAME: only a hint for reading ahead
            }
            b'(' => {
                self.memory.spend(cost::MARK)?;
                self.marks.push(self.stack.len());
            }
            b'0' => {
                self.pop()?;
            }
            b'1' => {
                self.pop_mark()?;
            }
            b'2' => {
                let top = self.top()?;
                self.push_id(top)?;
            }
            b'q' => {
                let index = self.file.byte()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = u32::from_le_bytes(self.file.array()?);
                self.remember(index)?;
            }
            0x94 => self.remember(self.memo.len() as u32)?,
            b'h' => {
                let index = self.file.byte()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = u32::from_le_bytes(self.file.array()?);
                self.recall(index)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an opcode that pushes a scalar; returns whether `opcode` is one.
    fn scalar_step(&mut self, opcode: u8) -> Result<bool, String> {
        match opcode {
            b'N' => self.push(Node::None)?,
            0x88 => self.push(Node::Bool(true))?,
            0x89 => self.push(Node::Bool(false))?,
            b'J' => {
                let value = i32::from_le_bytes(self.file.array()?);
                self.push(Node::Int(value.into()))?;
            }
            b'K' => {
                let value = self.file.byte()?;
                self.push(Node::Int(value.into()))?;
            }
            b'M' => {
                let value = u16::from_le_bytes(self.file.array()?);
                self.push(Node::Int(value.into()))?;
            }
            b'G' => {
                let value = f64::from_be_bytes(self.file.array()?);
                self.push(Node::Float(value))?;
            }
            0x8a => self.long(1)?,
            0x8b => self.long(4)?,
            b'X' => self.text(4)?,
            0x8c => self.text(1)?,
            0x8d => self.text(8)?,
            b'T' | b'B' => self.raw(4, opcode == b'T')?,
            b'U' | b'C' => self.raw(1, opcode == b'U')?,
            0x8e | 0x96 => self.raw(8, false)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Runs an opcode of tuples, lists, dicts or sets; returns whether `opcode` is one.
    fn container_step(&mut self, opcode: u8) -> Result<bool, String> {
        match opcode {
            b')' => self.push(Node::Tuple(Box::default()))?,
            0x85..=0x87 => {
                let items = self.pop_last(usize::from(opcode - 0x84))?;
                self.push(Node::Tuple(items.into()))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items.into()))?;
            }
            b']' => self.push(Node::List(Vec::new()))?,
            b'l' => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))?;
            }
            b'a' => {
                let items = self.pop_last(1)?;
                self.append(items)?;
            }
            b'e' => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Node::Dict(Vec::new()))?,
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(Vec::new()))?;
                self.set_items(&items)?;
            }
            b's' => {
                let items = self.pop_last(2)?;
                self.set_items(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(&items)?;
            }
            0x8f => self.push(Node::Inert)?,
            0x90 => {
                self.pop_mark()?;
                self.top()?;
            }
            0x91 => {
                self.pop_mark()?;
                self.push(Node::Inert)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    // --- values ---

    fn long(&mut self, width: usize) -> Result<(), String> {
        let digits = self.file.sized(width)?;
        let node = if digits.len() <= 8 {
            let negative = digits.last().is_some_and(|byte| byte & 0x80 != 0);
            let mut value = [if negative { 0xff } else { 0 }; 8];
            value[..digits.len()].copy_from_slice(digits);
            Node::Int(i64::from_le_bytes(value))
        } else {
            Node::Bytes(digits)
        };
        self.push(node)
    }

    /// Text; Python also writes text with surrogates (names of files that are no UTF-8), which stays bytes.
    fn text(&mut self, width: usize) -> Result<(), String> {
        self.raw(width, true)
    }

    /// Bytes; text, and strings of Python 2, become text if they are UTF-8.
    fn raw(&mut self, width: usize, is_text: bool) -> Result<(), String> {
        let bytes = self.file.sized(width)?;
        let text = std::str::from_utf8(bytes).ok().filter(|_| is_text);
        self.push(text.map_or(Node::Bytes(bytes), Node::Text))
    }

    // --- stack and memo ---

    fn push(&mut self, node: Node<'a>) -> Result<(), String> {
        self.memory.spend(cost::of(&node))?;
        self.push_id(self.arena.nodes.len() as Id)?; // below STEPS
        self.arena.nodes.push(node);
        Ok(())
    }

    fn push_id(&mut self, id: Id) -> Result<(), String> {
        self.memory.spend(cost::ITEM)?;
        self.stack.push(id);
        Ok(())
    }

    /// Returns the top above the last mark.
    fn top(&self) -> Result<Id, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let found = self.stack.get(floor..).and_then(<[Id]>::last);
        found.copied().ok_or_else(|| damaged("invalid stack", self.file.at))
    }

    fn pop(&mut self) -> Result<Id, String> {
        let top = self.top()?;
        self.stack.pop();
        Ok(top)
    }

    fn pop_last(&mut self, count: usize) -> Result<Vec<Id>, String> {
        let floor = self.marks.last().copied().unwrap_or(0);
        let from = self.stack.len().checked_sub(count).filter(|from| *from >= floor);
        Ok(self.stack.split_off(from.ok_or_else(|| damaged("invalid stack", self.file.at))?))
    }

    fn pop_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|mark| *mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or_else(|| damaged("invalid stack", self.file.at))?))
    }

    fn remember(&mut self, index: u32) -> Result<(), String> {
        let top = self.top()?;
        self.memory.spend(cost::MEMO)?;
        self.memo.insert(index, top);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Result<(), String> {
        let id = *self.memo.get(&index).ok_or_else(|| damaged("invalid memo", self.file.at))?;
        self.push_id(id)
    }

    /// Counts items copied between values, so that a small file cannot copy one long list many times.
    fn spend(&mut self, items: usize) -> Result<(), String> {
        self.copies = self.copies.checked_sub(items).ok_or_else(|| damaged("invalid lists", self.file.at))?;
        Ok(())
    }
}
