"""What skl2onnx has no converter for, or none that answers as scikit-learn does.

`writer` writes ONNX as one writes numpy; each family of estimators has a module that says with it
what scikit-learn computes; `methods` finds the right one; `register` makes skl2onnx ask here.
"""
