//! Names of other implementations.

/// How another implementation's names become ours: data made from a config by a pure function.
///
/// A name is cut after the longest module prefix it has, at a dot. The prefix is exchanged, and so is the longest
/// leaf the rest starts with, at a dot again; a name that no module prefix matches stays as it is. The empty module
/// matches every name. [`KeyMap::inverse`] leads back wherever no prefix and no leaf occurs twice on one side.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyMap {
    /// Module prefixes without the last dot, as (foreign, native), longest foreign first.
    pub modules: Vec<(String, String)>,
    /// What follows a module, as (foreign, native), longest foreign first.
    pub leaves: Vec<(String, String)>,
}

impl KeyMap {
    /// A map of these (foreign, native) pairs, in any order.
    pub fn new(mut modules: Vec<(String, String)>, mut leaves: Vec<(String, String)>) -> Self {
        for pairs in [&mut modules, &mut leaves] {
            pairs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        }
        Self { modules, leaves }
    }

    /// The native name of `foreign`.
    pub fn apply(&self, foreign: &str) -> String {
        let Some((module, rest)) = exchange(&self.modules, foreign) else { return foreign.to_owned() };
        let (leaf, rest) = exchange(&self.leaves, rest).unwrap_or(("", rest));
        let parts: Vec<&str> = [module, leaf, rest].into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }

    /// The map from native names to foreign ones.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let swap = |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
        Self::new(swap(&self.modules), swap(&self.leaves))
    }
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
