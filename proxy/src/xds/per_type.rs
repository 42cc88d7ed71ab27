//! One value for each resource type.

use tulle_proto::ResourceType;

/// One value for each resource type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PerType<T> {
    secret: T,
    cluster: T,
    endpoint: T,
    listener: T,
    route: T,
    name: T,
    ranges: T,
}

impl<T> PerType<T> {
    /// The value of a type.
    pub(super) const fn get(&self, kind: ResourceType) -> &T {
        match kind {
            ResourceType::Secret => &self.secret,
            ResourceType::Cluster => &self.cluster,
            ResourceType::Endpoint => &self.endpoint,
            ResourceType::Listener => &self.listener,
            ResourceType::Route => &self.route,
            ResourceType::Name => &self.name,
            ResourceType::Ranges => &self.ranges,
        }
    }

    /// The same, to change.
    pub(super) const fn get_mut(&mut self, kind: ResourceType) -> &mut T {
        match kind {
            ResourceType::Secret => &mut self.secret,
            ResourceType::Cluster => &mut self.cluster,
            ResourceType::Endpoint => &mut self.endpoint,
            ResourceType::Listener => &mut self.listener,
            ResourceType::Route => &mut self.route,
            ResourceType::Name => &mut self.name,
            ResourceType::Ranges => &mut self.ranges,
        }
    }
}
