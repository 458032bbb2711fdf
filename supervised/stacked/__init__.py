"""Many runs trained as one network: shapes, forward and backward by hand, optimizers, operations, native code."""
