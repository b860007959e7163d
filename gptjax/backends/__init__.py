"""Code for one kind of machine, injected into the model: CPU kernels, devices and meshes."""
