"""What suits a machine, injected into the model: execution, kernels of a CPU, devices."""
