//! Names of parameters in other implementations.

/// A map from another implementation's parameter names (*mapped*) to ours (*native*). It is data computed from a
/// config.
///
/// The longest module prefix of a name that ends at a dot is replaced, then the longest leaf that the rest starts with,
/// at a dot again. A name without a known module prefix stays as it is; the empty module matches every name.
/// [`KeyMap::inverse`] maps back if no prefix and no leaf occurs twice on one side. Leaves that only older versions of
/// the other implementation wrote are read too, and map back to the current ones.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyMap {
    /// Module prefixes without the trailing dot, as (mapped, native), longest mapped first.
    pub modules: Vec<(String, String)>,
    /// Leaves below a module, as (mapped, native), longest mapped first.
    pub leaves: Vec<(String, String)>,
    /// Leaves of older versions, like `leaves`; [`KeyMap::inverse`] has none.
    pub older: Vec<(String, String)>,
}

impl KeyMap {
    /// Creates a map from (mapped, native) pairs in any order.
    pub fn new(mut modules: Vec<(String, String)>, mut leaves: Vec<(String, String)>) -> Self {
        sort(&mut modules);
        sort(&mut leaves);
        Self { modules, leaves, older: Vec::new() }
    }

    /// Adds the (mapped, native) leaves of older versions.
    #[must_use]
    pub fn with_older(mut self, mut leaves: Vec<(String, String)>) -> Self {
        sort(&mut leaves);
        self.older = leaves;
        self
    }

    /// Returns the native name of `mapped`.
    pub fn apply(&self, mapped: &str) -> String {
        let Some((module, rest)) = exchange(&self.modules, mapped) else {
            return mapped.to_owned();
        };
        let known = exchange(&self.leaves, rest).or_else(|| exchange(&self.older, rest));
        let (leaf, rest) = known.unwrap_or(("", rest));
        let parts: Vec<&str> = [module, leaf, rest].into_iter().filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }

    /// The map from native to mapped names.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let swap = |pairs: &[(String, String)]| pairs.iter().map(|(a, b)| (b.clone(), a.clone())).collect();
        Self::new(swap(&self.modules), swap(&self.leaves))
    }
}

fn sort(pairs: &mut [(String, String)]) {
    pairs.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
}

/// Returns the replacement of the first pair that `name` starts with, at a dot, and the rest after the dot.
fn exchange<'a>(pairs: &'a [(String, String)], name: &'a str) -> Option<(&'a str, &'a str)> {
    pairs.iter().find_map(|(from, to)| {
        let rest = name.strip_prefix(from.as_str())?;
        if from.is_empty() || rest.is_empty() {
            return Some((to.as_str(), rest));
        }
        Some((to.as_str(), rest.strip_prefix('.')?))
    })
}
