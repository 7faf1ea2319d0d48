"""The typed config: schema, composition, registry of components, errors explained."""
