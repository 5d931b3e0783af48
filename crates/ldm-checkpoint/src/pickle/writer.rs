//! Writing the pickle of a state dict (protocol 2, as `torch.save`).

/// A pickle under construction: opcodes for the reader's stack.
pub(crate) struct PickleWriter(Vec<u8>);

impl PickleWriter {
    pub(crate) fn new() -> Self {
        Self(b"\x80\x02".to_vec())
    }

    /// Ends the pickle; its value is the one left on the stack.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.push(b'.');
        self.0
    }

    pub(crate) fn text(&mut self, text: &str) {
        let length = u32::try_from(text.len()).expect("no name has four billion bytes");
        self.0.push(b'X');
        self.0.extend(length.to_le_bytes());
        self.0.extend(text.as_bytes());
    }

    pub(crate) fn int(&mut self, value: i64) {
        match (u8::try_from(value), i32::try_from(value)) {
            (Ok(small), _) => self.0.extend([b'K', small]),
            (_, Ok(medium)) => {
                self.0.push(b'J');
                self.0.extend(medium.to_le_bytes());
            }
            _ => {
                self.0.extend([0x8a, 8]);
                self.0.extend(value.to_le_bytes());
            }
        }
    }

    pub(crate) fn push_false(&mut self) {
        self.0.push(0x89);
    }

    pub(crate) fn global(&mut self, module: &str, name: &str) {
        self.0.push(b'c');
        for word in [module, name] {
            self.0.extend(word.as_bytes());
            self.0.push(b'\n');
        }
    }

    /// A tuple of the values that `items` pushes.
    pub(crate) fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b't');
    }

    pub(crate) fn ints(&mut self, values: &[i64]) {
        self.tuple(|pickle| values.iter().for_each(|value| pickle.int(*value)));
    }

    /// A dict of the keys and values that `items` pushes alternately.
    pub(crate) fn dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'}');
        self.set(items);
    }

    /// [`PickleWriter::dict`] as a `collections.OrderedDict`.
    pub(crate) fn ordered_dict(&mut self, items: impl FnOnce(&mut Self)) {
        self.call("collections", "OrderedDict", |_| {});
        self.set(items);
    }

    fn set(&mut self, items: impl FnOnce(&mut Self)) {
        self.0.push(b'(');
        items(self);
        self.0.push(b'u');
    }

    /// A call of `module.name` with the arguments that `arguments` pushes.
    pub(crate) fn call(&mut self, module: &str, name: &str, arguments: impl FnOnce(&mut Self)) {
        self.global(module, name);
        self.tuple(arguments);
        self.0.push(b'R');
    }

    /// A persistent ID: the tuple that `items` pushes.
    pub(crate) fn persistent(&mut self, items: impl FnOnce(&mut Self)) {
        self.tuple(items);
        self.0.push(b'Q');
    }
}
