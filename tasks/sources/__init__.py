"""Where data come from: files the user has, torchvision's downloads. Shared by tasks; not tasks themselves."""
