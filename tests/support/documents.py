"""Compare documents such as Kubernetes manifests."""


def leaf_values(node: object, path: str = "") -> set[str]:
    """Each scalar value of a document, with its path."""
    if isinstance(node, dict):
        pairs = [*node.items()]
    elif isinstance(node, list):
        pairs = [*enumerate(node)]
    else:
        return {f"{path}={node!r}"}
    return {leaf for key, value in pairs for leaf in leaf_values(value, f"{path}.{key}")}
