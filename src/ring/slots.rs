//! Things named by small numbers, given out last-free first.
//!
//! A number that names nothing is our own bug, never a peer's, so it is asserted.

/// See the module.
#[derive(Debug)]
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    free: Vec<u32>,
}

impl<T> Slots<T> {
    /// Nothing yet. Allocates again only beyond `capacity` things.
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { slots: Vec::with_capacity(capacity), free: Vec::with_capacity(capacity) }
    }

    /// How many things there are.
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Names a thing.
    pub(super) fn insert(&mut self, thing: T) -> u32 {
        if let Some(number) = self.free.pop() {
            self.slots[super::index(number)] = Some(thing);
            return number;
        }
        let number = u32::try_from(self.slots.len()).expect("bounded by limits");
        self.slots.push(Some(thing));
        number
    }

    /// Takes a thing out; its number may be given to another.
    pub(super) fn remove(&mut self, number: u32) -> T {
        let thing = self.slots[super::index(number)].take().expect("names a thing");
        self.free.push(number);
        thing
    }

    /// The thing of this number.
    pub(super) fn at(&self, number: u32) -> &T {
        self.slots[super::index(number)].as_ref().expect("names a thing")
    }

    /// The thing of this number.
    pub(super) fn at_mut(&mut self, number: u32) -> &mut T {
        self.slots[super::index(number)].as_mut().expect("names a thing")
    }

    /// All things.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.slots.iter().flatten()
    }
}
