//! Structs whose fields everybody may read and this crate alone may write.

/// Makes a struct, and for each field a getter of the same name with the field's documentation.
///
/// A getter returns a copy; behind `=>` stands what it lends instead. Fields in `with` have none.
macro_rules! getters {
    (
        $(#[$about:meta])*
        $visibility:vis struct $name:ident $(<$life:lifetime>)? {
            $($(#[$doc:meta])+ $open:vis $field:ident: $type:ty $(=> $lent:ty)?,)+
        } $(with {
            $($(#[$inner_doc:meta])* $inner_open:vis $inner:ident: $inner_type:ty,)+
        })?
    ) => {
        $(#[$about])*
        $visibility struct $name $(<$life>)? {
            $(#[doc(hidden)] $open $field: $type,)+
            $($($(#[$inner_doc])* #[doc(hidden)] $inner_open $inner: $inner_type,)+)?
        }

        impl $(<$life>)? $name $(<$life>)? {
            $($(#[$doc])+
            pub fn $field(&self) -> $crate::getters::getters!(@type $type $(, $lent)?) {
                $crate::getters::getters!(@read self.$field $(, $lent)?)
            })+
        }
    };
    (@type $type:ty) => { $type };
    (@type $type:ty, $lent:ty) => { $lent };
    (@read $field:expr) => { $field };
    (@read $field:expr, $lent:ty) => { &$field };
}
pub(crate) use getters;
