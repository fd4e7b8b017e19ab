"""ComfyUI's way in: a checkout in `ComfyUI/custom_nodes` is a set of nodes, with nothing installed.

Only the standard library is imported here; torch and the rest are imported when a node runs.
"""

if __package__:  # empty where pytest, on its way to the tests, imports this file on its own
    from .comfyui.own_package import import_own

    _nodes = import_own("integrations.comfyui", __name__)
    _nodes.register_models_folder()

    NODE_CLASS_MAPPINGS = _nodes.NODE_CLASS_MAPPINGS
    NODE_DISPLAY_NAME_MAPPINGS = _nodes.NODE_DISPLAY_NAME_MAPPINGS

    __all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
