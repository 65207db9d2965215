//! Bugs on demand, to show that audit and simulation would find them.

use super::MemCache;

/// A bug to plant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Free a page that a row holds privately.
    DoubleFree,
    /// Free pages of the tree that a row has locked.
    EarlyEviction,
    /// Free a recurrent state that the tree still gives to new rows.
    FreedSnapshot,
    /// Free a window page that a row looks at.
    FreedWindowPage,
}

impl MemCache {
    /// Breaks the bookkeeping. False if no page offers itself now.
    #[must_use]
    pub fn plant(&mut self, fault: Fault) -> bool {
        match fault {
            Fault::DoubleFree => self.plant_double_free(),
            Fault::EarlyEviction => self.plant_early_eviction(),
            Fault::FreedSnapshot => {
                let Some(states) = &mut self.states else { return false };
                states.plant_freed_snapshot(&self.tree)
            }
            Fault::FreedWindowPage => {
                let Some(windows) = &mut self.windows else { return false };
                windows.plant_free_window_page(&self.tables)
            }
        }
    }

    fn plant_double_free(&mut self) -> bool {
        for (row, hold) in self.holds.iter().enumerate() {
            let Some(hold) = hold else { continue };
            if let Some(&page) = self.tables.pages(row).get(hold.num_tree_pages) {
                self.allocator.plant_double_free(page);
                return true;
            }
        }
        false
    }

    /// As an eviction that forgot to look at locks would.
    fn plant_early_eviction(&mut self) -> bool {
        let in_use = |hold: &&super::Hold| hold.num_tree_pages > 0;
        let Some(hold) = self.holds.iter().flatten().find(in_use).copied() else { return false };
        self.tree.plant_unlock(hold.node);
        self.tree.evict(usize::MAX, &mut self.freed);
        for page in std::mem::take(&mut self.freed) {
            self.allocator.free(page);
        }
        self.free_collected();
        true
    }
}
