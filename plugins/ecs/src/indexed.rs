//! An object in which known keys are found without a search.

use crate::keys::{COUNT, Key, Name};
use crate::value::{Object, Value};

/// One of the two outermost objects, which have most members and are accessed most.
#[derive(Debug)]
pub struct Indexed<'a> {
    object: Object<'a>,
    /// By key: the position of its member, plus one. 0: absent. [`BEYOND`]: it must be searched
    /// for.
    places: [u8; COUNT],
}

const BEYOND: u8 = u8::MAX;

impl<'a> Indexed<'a> {
    pub fn with_capacity(members: usize) -> Indexed<'a> {
        Indexed {
            object: Object {
                members: Vec::with_capacity(members),
            },
            places: [0; COUNT],
        }
    }

    pub fn into_object(self) -> Object<'a> {
        self.object
    }

    pub fn position(&self, key: Key) -> Option<usize> {
        match self.places[key.number()] {
            0 => None,
            BEYOND => self.object.position(key),
            place => Some(usize::from(place) - 1),
        }
    }

    pub fn get(&mut self, key: Key) -> Option<&mut Value<'a>> {
        let at = self.position(key)?;
        Some(&mut self.object.members[at].1)
    }

    pub fn take(&mut self, key: Key) -> Option<Value<'a>> {
        let at = self.position(key)?;
        self.places[key.number()] = 0;
        let (_, value) = self.object.members.swap_remove(at);
        // The last member has moved to this position.
        if let Some((Name::Known(moved), _)) = self.object.members.get(at) {
            self.places[moved.number()] = place(at);
        }
        Some(value)
    }

    /// Replaces an existing value.
    pub fn put(&mut self, key: Key, value: Value<'a>) {
        match self.get(key) {
            Some(place) => *place = value,
            None => _ = self.push(key.into(), value),
        }
    }

    /// Adds a member whose key is absent.
    pub fn push(&mut self, name: Name<'a>, value: Value<'a>) -> &mut Value<'a> {
        let at = self.object.members.len();
        if let Name::Known(key) = name {
            self.places[key.number()] = place(at);
        }
        self.object.members.push((name, value));
        &mut self.object.members[at].1
    }

    pub fn clear(&mut self) {
        self.object.members.clear();
        self.places = [0; COUNT];
    }
}

fn place(at: usize) -> u8 {
    u8::try_from(at + 1).unwrap_or(BEYOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_found_among_many_members() {
        let (name, other) = (Key::of("name"), Key::of("version"));
        let mut object = Indexed::with_capacity(0);
        for number in 0..300 {
            object.push(Name::of(format!("x{number}")), Value::number(number));
        }
        object.push(name.into(), Value::raw("1"));
        object.put(other, Value::raw("2"));
        assert_eq!(
            object.get(name).and_then(|value| value.as_number()),
            Some(1.0)
        );
        assert_eq!(
            object.take(name).and_then(|value| value.as_number()),
            Some(1.0)
        );
        assert_eq!(
            (object.position(name), object.position(other)),
            (None, Some(300))
        );
        assert_eq!(object.into_object().members.len(), 301);
    }

    #[test]
    fn a_moved_member_is_found() {
        let (name, other) = (Key::of("name"), Key::of("version"));
        let mut object = Indexed::with_capacity(0);
        object.put(name, Value::raw("1"));
        object.push(Name::of("x"), Value::raw("0"));
        object.put(other, Value::raw("2"));
        object.take(name);
        assert_eq!(
            (object.position(name), object.position(other)),
            (None, Some(0))
        );
        assert_eq!(
            object.get(other).and_then(|value| value.as_number()),
            Some(2.0)
        );
    }
}
