"""The benchmark suite behind ``fastguide bench``.

One file a kernel or workload says which competitors do the same job on the same data, and which figures the kernel has to
reach; `timing` runs competitors in turn in one process; `run` checks every result before it times it; `peers` says how each
package is called. Nothing here is imported by the rest of fastguide.
"""
