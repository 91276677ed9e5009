//! Who has allocated the memory that is in use.

use std::collections::HashMap;
use std::ffi::c_void;
use std::time::{SystemTime, UNIX_EPOCH};

use pprof::protos::{Function, Line, Location, Profile, Sample, ValueType};

/// Functions of jemalloc itself, which are on top of every stack: readers leave them out.
const OF_ALLOCATOR: &str = "prof_.*|_rjem_.*";

/// Asks the allocator; why it does not tell.
pub type HeapSample = fn() -> Result<Vec<Held>, String>;

/// Memory that is allocated and not freed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Who allocated it: the addresses to return to, the innermost first.
    pub stack: Vec<usize>,
    /// About how many bytes.
    pub bytes: i64,
}

/// The names of the functions at an address, an inlined one before the one that it is part of.
type NamesAt = fn(usize) -> Vec<Name>;

#[derive(Clone, Debug, Eq, Hash, PartialEq)]
struct Name {
    readable: String,
    /// As the linker knows it.
    raw: String,
}

/// The profile, with the names of functions as far as this program knows them.
pub(super) fn profile(held: &[Held]) -> Profile {
    let profile = build(held, names_at);
    // Tens of megabytes.
    backtrace::clear_symbol_cache();
    profile
}

fn names_at(address: usize) -> Vec<Name> {
    let mut names = Vec::new();
    backtrace::resolve(address as *mut c_void, |symbol| {
        if let Some(name) = symbol.name() {
            let raw = String::from_utf8_lossy(name.as_bytes()).into_owned();
            names.push(Name { readable: format!("{name:#}"), raw });
        }
    });
    names
}

fn build(held: &[Held], names_at: NamesAt) -> Profile {
    let mut builder = Builder::new(names_at);
    let (space, bytes) = (builder.string("inuse_space"), builder.string("bytes"));
    let sample_type = vec![ValueType { ty: space, unit: bytes }];
    for one in held {
        let location_id = one.stack.iter().map(|address| builder.location(*address)).collect();
        let value = vec![one.bytes];
        builder.profile.sample.push(Sample { location_id, value, ..Default::default() });
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_nanos = i64::try_from(now.as_nanos()).unwrap_or_default();
    let period_type = Some(ValueType { ty: builder.string("space"), unit: bytes });
    let drop_frames = builder.string(OF_ALLOCATOR);
    Profile { sample_type, time_nanos, period_type, drop_frames, ..builder.profile }
}

/// Strings, functions and addresses are told once each.
struct Builder {
    names_at: NamesAt,
    profile: Profile,
    strings: HashMap<String, i64>,
    functions: HashMap<Name, u64>,
    locations: HashMap<usize, u64>,
}

impl Builder {
    fn new(names_at: NamesAt) -> Self {
        let (profile, strings) = Default::default();
        let (functions, locations) = Default::default();
        let mut new = Self { names_at, profile, strings, functions, locations };
        // The first string is the empty one, by the format.
        new.string("");
        new
    }

    fn string(&mut self, text: &str) -> i64 {
        if let Some(known) = self.strings.get(text) {
            return *known;
        }
        let index = i64::try_from(self.strings.len()).expect("they fit into memory");
        self.strings.insert(text.to_owned(), index);
        self.profile.string_table.push(text.to_owned());
        index
    }

    fn function(&mut self, function: Name) -> u64 {
        if let Some(known) = self.functions.get(&function) {
            return *known;
        }
        let id = self.profile.function.len() as u64 + 1;
        let (name, system_name) = (self.string(&function.readable), self.string(&function.raw));
        self.profile.function.push(Function { id, name, system_name, ..Default::default() });
        self.functions.insert(function, id);
        id
    }

    fn location(&mut self, address: usize) -> u64 {
        if let Some(known) = self.locations.get(&address) {
            return *known;
        }
        // The call lies before the address that it returns to.
        let call = address.saturating_sub(1);
        let functions = (self.names_at)(call).into_iter().map(|name| self.function(name));
        let line = functions.map(|function_id| Line { function_id, ..Default::default() });
        let line = line.collect();
        let id = self.profile.location.len() as u64 + 1;
        let location = Location { id, address: call as u64, line, ..Default::default() };
        self.profile.location.push(location);
        self.locations.insert(address, id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tens are a function that is inlined into that of the hundreds; nothing is below ten.
    fn names(address: usize) -> Vec<Name> {
        let name = |what: &str, unit: usize| {
            let readable = format!("{what} {}", address / unit);
            Name { raw: format!("_{readable}"), readable }
        };
        match address {
            0..10 => Vec::new(),
            _ => vec![name("inlined", 10), name("outer", 100)],
        }
    }

    /// The functions of a sample, the innermost first.
    fn stack(profile: &Profile, sample: usize) -> Vec<&str> {
        let index = |id: u64| usize::try_from(id).expect("fits") - 1;
        let locations = profile.sample[sample].location_id.iter();
        let lines = locations.flat_map(|id| &profile.location[index(*id)].line);
        let functions = lines.map(|line| &profile.function[index(line.function_id)]);
        let name = |at: i64| profile.string_table[usize::try_from(at).expect("fits")].as_str();
        functions
            .inspect(|function| {
                assert_eq!(name(function.system_name), format!("_{}", name(function.name)));
            })
            .map(|function| name(function.name))
            .collect()
    }

    #[test]
    fn a_stack_is_told_by_the_names_of_its_functions() {
        let held = [
            // The call in 239 returns to 240.
            Held { stack: vec![240, 351, 7], bytes: 7 },
            Held { stack: vec![351, 250], bytes: 8 },
        ];
        let profile = build(&held, names);
        let values: Vec<_> = profile.sample.iter().map(|sample| sample.value.clone()).collect();
        assert_eq!(values, [[7], [8]]);
        assert_eq!(stack(&profile, 0), ["inlined 23", "outer 2", "inlined 35", "outer 3"]);
        assert_eq!(stack(&profile, 1), ["inlined 35", "outer 3", "inlined 24", "outer 2"]);
        let addresses: Vec<u64> = profile.location.iter().map(|one| one.address).collect();
        assert_eq!(addresses, [239, 350, 6, 249], "one address, one location");
        assert_eq!(profile.function.len(), 5, "one name, one function");
        assert_eq!(profile.string_table[0], "");
    }
}
