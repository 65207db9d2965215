const int GROUP_X = int(threadgroup_position_in_grid.x), GROUPS_X = int(threadgroups_per_grid.x);
const int GROUP_Y = int(threadgroup_position_in_grid.y), GROUPS_Y = int(threadgroups_per_grid.y);
const int GROUP_Z = int(threadgroup_position_in_grid.z);
const int THREAD = int(thread_position_in_threadgroup.x), THREADS = int(threads_per_threadgroup.x);
const int SIMDGROUP = int(simdgroup_index_in_threadgroup), LANE = int(thread_index_in_simdgroup);
(void)GROUP_X, (void)GROUPS_X, (void)GROUP_Y, (void)GROUPS_Y, (void)GROUP_Z;
(void)THREADS, (void)SIMDGROUP, (void)LANE;
