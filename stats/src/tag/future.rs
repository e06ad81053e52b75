//! Futures that take their tag along.

use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::task::{Context, Poll};

use super::{Tag, tag};

/// What every future can do: be on account of a tag.
pub trait Tagged: Future + Sized {
    /// Puts all that this future allocates on account of a tag, in each of its polls and in its destructor, on whatever thread these happen.
    ///
    /// ```
    /// use freestone_stats::tag::Tagged;
    ///
    /// async fn serve() {}
    /// let task = serve().tagged("tenant-42");
    /// # drop(task);
    /// ```
    fn tagged(self, tag: impl Into<Tag>) -> TaggedFuture<Self> {
        TaggedFuture { future: ManuallyDrop::new(self), tag: tag.into() }
    }
}

impl<F: Future> Tagged for F {}

/// A future on account of a tag: see [`Tagged::tagged`].
#[must_use = "futures do nothing unless they are polled"]
pub struct TaggedFuture<F> {
    /// Dropped by hand, within a scope of the tag.
    future: ManuallyDrop<F>,
    tag: Tag,
}

impl<F: Future> Future for TaggedFuture<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let _scope = tag(self.tag);
        // SAFETY: the future is pinned as long as this is: nothing moves it out, and `drop` below drops it where it is.
        let future = unsafe { self.map_unchecked_mut(|this| &mut *this.future) };
        future.poll(context)
    }
}

impl<F> Drop for TaggedFuture<F> {
    fn drop(&mut self) {
        let _scope = tag(self.tag);
        // SAFETY: here and nowhere else, and it is not used again.
        unsafe { ManuallyDrop::drop(&mut self.future) };
    }
}

impl<F> fmt::Debug for TaggedFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaggedFuture").field("tag", &self.tag).finish_non_exhaustive()
    }
}
