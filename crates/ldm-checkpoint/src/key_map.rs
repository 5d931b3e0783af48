//! Names of other implementations.

/// How another implementation's names become ours: data made from a config by a pure function.
///
/// A name is cut after the longest module prefix it has, at a dot. The prefix is exchanged, and so is the longest
/// leaf the rest starts with, at a dot again; a name that no module prefix matches stays as it is. The empty module
/// matches every name. [`KeyMap::inverse`] leads back wherever no prefix and no leaf occurs twice on one side.
/// Leaves that only older versions of the other implementation wrote are read too, and lead back to the current ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyMap {
    /// Module prefixes without the last dot, as (unsupported_kind, native), longest unsupported_kind first.
    pub modules: Vec<(String, String)>,
    /// What follows a module, as (unsupported_kind, native), longest unsupported_kind first.
    pub leaves: Vec<(String, String)>,
    /// Leaves of older versions, as `leaves`; [`KeyMap::inverse`] has none.
    pub older: Vec<(String, String)>,
}

impl KeyMap {
    /// A map of these (unsupported_kind, native) pairs, in any order.
    pub fn new(mut modules: Vec<(String, String)>, mut leaves: Vec<(String, String)>) -> Self {
        sort(&mut modules);
        sort(&mut leaves);
        Self { modules, leaves, older: Vec::new() }
    }

    /// Reads the (unsupported_kind, native) leaves of older versions too.
    #[must_use]
    pub fn with_older(mut self, mut leaves: Vec<(String, String)>) -> Self {
        sort(&mut leaves);
        self.older = leaves;
        self
    }

    /// The native name of `unsupported_kind`.
    pub fn apply(&self, unsupported_kind: &str) -> String {
        let Some((module, rest)) = exchange(&self.modules, unsupported_kind) else {
            return unsupported_kind.to_owned();
        };
        let known = exchange(&self.leaves, rest).or_else(|| exchange(&self.older, rest));
        let (leaf, rest) = known.unwrap_or(("", rest));
        let parts: Vec<&str> = [module, leaf, rest].into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }

    /// The map from native names to unsupported_kind ones.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let swap = |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
        Self::new(swap(&self.modules), swap(&self.leaves))
    }
}

fn sort(pairs: &mut [(String, String)]) {
    pairs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
}

/// The partner of the first pair that `name` starts with, at a dot, and what follows the dot.
fn exchange<'a>(pairs: &'a [(String, String)], name: &'a str) -> Option<(&'a str, &'a str)> {
    pairs.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        if from.is_empty() || rest.is_empty() {
            return Some((to.as_str(), rest));
        }
        Some((to.as_str(), rest.strip_prefix('.')?))
    })
}
