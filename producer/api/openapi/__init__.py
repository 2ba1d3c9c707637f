"""What the OpenAPI document says beside what the operations say of themselves."""
